"""What a worker is given before it exists: a name, its channel, its output pipes.

Each worker has its own, and the inner ends live here only until they were lent to the zygote: nothing of one worker is ever
seen by another one.
"""

from __future__ import annotations

import os
import socket


class Outfit:
    """`channel` and `outputs` are our ends, `inner` the worker's (channel, stdout, stderr), `links` how /proc shows those."""

    __slots__ = ("channel", "inner", "links", "name", "outputs", "_far")

    def __init__(self, name: str) -> None:
        self.name = name
        self.channel, self._far = socket.socketpair()
        out, inner_out = os.pipe()
        err, inner_err = os.pipe()
        self.outputs = (out, err)
        self.inner = (self._far.fileno(), inner_out, inner_err)
        channel, out, err = (os.fstat(fd).st_ino for fd in self.inner)
        self.links = (f"socket:[{channel}]", f"pipe:[{out}]", f"pipe:[{err}]")
        for fd in self.outputs:
            os.set_blocking(fd, False)
        self.channel.setblocking(False)

    def lent(self) -> None:
        """The worker's ends are on their way, or never will be: close ours of them."""
        if self.inner:
            self._far.close()
            for fd in self.inner[1:]:
                os.close(fd)
            self.inner = ()  # type: ignore[assignment]
