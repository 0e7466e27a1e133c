"""Entrance of a sandboxed process; the supervisor runs this file by path with `-I -B -S`.

    python -I -B -S …/pyproc_worker/__main__.py PACKAGES STAGE

`-S` keeps `.pth` files from running before the sandbox stands; PACKAGES is the folder that holds this package and is
put at the end of the path, behind the standard library. Everything else comes over descriptor 3 (`boot`).
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    if sys.argv[2] == "probe":
        from pyproc_worker.jail import probe

        probe.main()
    else:
        refusal = ""
        if sys.argv[2] == "door":
            from pyproc_worker import door

            try:
                door.enter(sys.argv)
            except OSError as error:
                refusal = str(error)
        from pyproc_worker import boot

        boot.main(refusal)
