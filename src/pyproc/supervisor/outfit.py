"""What a worker is given before it exists: a name, its channel with the arenas, its output pipes.

Each worker has its own, and the inner ends live here only until they were lent to the zygote: nothing of one worker is ever
seen by another one.
"""

from __future__ import annotations

import os

from pyproc.link.channel import Channel
from pyproc_wire.limits import REQUEST_BYTES, RESPONSE_BYTES


class Outfit:
    """`outputs` are our ends, `inner` the worker's (stdout, stderr, answers, requests, greeting, both arenas), `links` how /proc shows
    those. `ahead`: requests that may wait in the channel."""

    __slots__ = ("_inner_outputs", "channel", "links", "name", "outputs")

    def __init__(self, name: str, request: int = REQUEST_BYTES, response: int = RESPONSE_BYTES, ahead: int = 0,
                 busy: float = 0.0) -> None:
        self.name = name
        self.channel = Channel(request, response, ahead, busy)
        out, inner_out = os.pipe()
        try:
            err, inner_err = os.pipe()
        except OSError:  # the channel closes itself
            os.close(out)
            os.close(inner_out)
            raise
        self.outputs = (out, err)
        self._inner_outputs = (inner_out, inner_err)
        self.links = tuple(f"pipe:[{os.fstat(fd).st_ino}]" for fd in self._inner_outputs) + self.channel.links
        for fd in self.outputs:
            os.set_blocking(fd, False)

    @property
    def inner(self) -> tuple[int, ...]:
        return self._inner_outputs + self.channel.inner + self.channel.arena.inner

    def lent(self) -> None:
        """The worker's ends are on their way, or never will be: close ours of them."""
        self.channel.handed_over()
        for fd in self._inner_outputs:
            os.close(fd)
        self._inner_outputs = ()  # type: ignore[assignment]
