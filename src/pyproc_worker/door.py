"""Stage 0, on the host: into a user namespace of its own, and an exec there (`boot`). Every start pays for what is imported
here, so it is next to nothing; the exec would throw it away."""

from __future__ import annotations

import os
import sys

from pyproc_worker.jail import libc, namespaces

CONTROL, LIFELINE = 3, 4  # descriptors, lent by the supervisor


def enter(argv: list[str]) -> None:
    """Exec stage "inner" in a new user namespace, whose maps the supervisor has written by then. Raises OSError where none can be
    made."""
    libc.close_all_but({0, 1, 2, CONTROL, LIFELINE})
    namespaces.unshare(["user"])
    os.write(LIFELINE, b"U")
    if os.read(LIFELINE, 1) != b"M":
        os._exit(70)
    os.execv(sys.executable, [sys.executable, "-I", "-B", "-S", argv[0], argv[1], "inner"])  # noqa: S606
