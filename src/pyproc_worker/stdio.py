"""Standard output and error of a worker: text lines to descriptors 1 and 2, counted for the present call.

The count tells the supervisor how much to expect from the pipes for this call, so that lines are put to the right one.
It is a hint: what C code or a thread writes to the descriptor is drained as well, and the limit is kept by who reads.

A call that writes nothing pays one attribute: `touched`. Both layers set it, because `print` goes through the text and
`sys.stdout.buffer` does not. Installed before the script is imported, so that what the script keeps (a logging handler
takes `sys.stderr` as it is then) is counted too.
"""

from __future__ import annotations

import io
import sys
from typing import Any, Final


class Tally:
    """Our two streams, and the bytes written to both since they were last taken."""

    __slots__ = ("touched", "count", "_streams")

    def __init__(self) -> None:
        self.touched = False
        self.count = 0
        self._streams: dict[str, io.TextIOWrapper] = {}

    def open(self, name: str, descriptor: int) -> None:
        """Make `sys.<name>` a counting stream on `descriptor`."""
        stream = counting(descriptor, self)
        self._streams[name] = stream
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)

    def take(self) -> int:
        """Flush both streams and return the bytes written since the last time. Never raises: output is not the call.

        A stream that a function has closed is opened again, so that the next call can print.
        """
        for name, stream in list(self._streams.items()):
            try:
                stream.flush()
            except ValueError:
                self.open(name, _DESCRIPTORS[name])
            except OSError:
                pass  # nobody reads any more; the channel will end as well
        count, self.count = self.count, 0
        self.touched = False
        return count


class _Bytes(io.BufferedWriter):
    tally: Tally

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self.tally.count += written
        self.tally.touched = True
        return written


class _Text(io.TextIOWrapper):
    tally: Tally

    def write(self, text: str, /) -> int:
        self.tally.touched = True
        return super().write(text)

    def close(self) -> None:
        self.tally.touched = True
        super().close()


_DESCRIPTORS: Final = {"stdout": 1, "stderr": 2}

_installed: Tally | None = None


def install() -> Tally:
    """Replace sys.stdout and sys.stderr by counting streams on descriptors 1 and 2; the second time nothing happens."""
    global _installed
    if _installed is None:
        _installed = Tally()
        for name, descriptor in _DESCRIPTORS.items():
            _installed.open(name, descriptor)
    return _installed


def counting(descriptor: int, tally: Tally) -> io.TextIOWrapper:
    """A text stream on `descriptor`, flushed at each newline, that counts into `tally`. It does not own the descriptor."""
    binary = _Bytes(io.FileIO(descriptor, "w", closefd=False))
    binary.tally = tally
    text = _Text(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    text.tally = tally
    return text
