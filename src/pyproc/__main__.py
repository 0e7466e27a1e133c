"""`python -m pyproc` is `pyproc`."""

from __future__ import annotations

from pyproc.cli.main import main

if __name__ == "__main__":
    main()
