"""Standard output and error of a worker: written at once to the private pipes, and counted for the call.

The count tells the supervisor that there is something to read before the next call begins, so that lines are put to the
right call. It is a hint: bytes that C code writes are drained as well, and limits are kept by who reads.

A function may close the streams or put others in their place (a redirection that was never undone). That is its own
affair during its call; `taken` flushes ours, and opens a closed one again, so that the next call can print.
"""

from __future__ import annotations

import io
import sys

STREAMS = (("stdout", 1), ("stderr", 2))


class _Counted(io.FileIO):
    written = 0

    def write(self, data: object) -> int:
        count = super().write(data)  # type: ignore[arg-type]
        if count:
            _Counted.written += count
        return count


_ours: list[io.TextIOWrapper] = []


def install() -> None:
    """Replace sys.stdout and sys.stderr by line-buffered writers on descriptors 1 and 2."""
    _ours.clear()
    for name, fd in STREAMS:
        raw = _Counted(fd, "w", closefd=False)
        stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        _ours.append(stream)
    _Counted.written = 0


def taken() -> int:
    """Bytes written since the last time this was asked; flushes first."""
    try:
        for stream in _ours:
            stream.flush()
    except ValueError:  # a function closed one
        count = _Counted.written
        install()
        return count
    except OSError:
        pass  # nobody reads any more; the channel will end as well
    count, _Counted.written = _Counted.written, 0
    return count
