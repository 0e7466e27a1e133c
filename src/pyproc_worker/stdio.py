"""Standard output and error of a worker: written at once to the private pipes, and counted for the call.

The count tells the supervisor that there is something to read before the next call begins, so that lines are put to the
right call. It is a hint: bytes that C code writes are drained as well, and limits are kept by who reads.
"""

from __future__ import annotations

import io
import sys


class _Counted(io.FileIO):
    written = 0

    def write(self, data: object) -> int:
        count = super().write(data)  # type: ignore[arg-type]
        _Counted.written += count
        return count


def install() -> None:
    """Replace sys.stdout and sys.stderr by unbuffered-by-line writers on descriptors 1 and 2."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = _Counted(fd, "w", closefd=False)
        stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def taken() -> int:
    """Bytes written since the last time this was asked; flushes first."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass
    count, _Counted.written = _Counted.written, 0
    return count
