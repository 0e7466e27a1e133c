"""A worker's ends of its channel: two pipes for calls and, until it has introduced itself, a socket.

What is sent on the socket arrives with the kernel's word on who sent it, which a pipe does not give; it is closed after that.
"""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import Final

from pyproc_wire import polling
from pyproc_wire.limits import RECV_BYTES


class Channel:
    """`requests`, `answers` and `greeting` are descriptors; nothing waits longer than the supervisor lives. `busy`: seconds of
    `busy_polling`."""

    __slots__ = ("_busy", "_greeting", "_poll", "answers", "lively", "requests")

    def __init__(self, requests: int, answers: int, greeting: int, busy: float = 0.0) -> None:
        self.requests: Final = requests
        self.answers: Final = answers
        self._greeting = greeting
        self.lively = False
        self._busy = busy
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)

    def greet(self, frame: bytes) -> None:
        """Send the first frame, and close what it went over. Raises OSError."""
        _write(self._greeting, frame)
        os.close(self._greeting)

    def send(self, frame: bytes) -> None:
        """Send a frame, waiting for room. Raises OSError."""
        _write(self.answers, frame)

    def receive(self) -> bytes:
        """What has arrived, at least a byte; b"" when the supervisor's end is closed. Waits."""
        return os.read(self.requests, RECV_BYTES)

    def look_out(self) -> None:
        """Poll for a request for a while, as `polling` says; `lively` after it: whether to do so again."""
        if self._busy:
            polling.busily(self._poll.poll, os.sched_yield, monotonic, self._busy)
        else:
            self.lively = polling.look_out(self._poll.poll, os.sched_yield)

    @property
    def waiting(self) -> bool:
        """Whether `receive` would return at once."""
        return bool(self._poll.poll(0))


def _write(fd: int, frame: bytes) -> None:
    sent = os.write(fd, frame)
    while sent != len(frame):
        frame = frame[sent:]
        sent = os.write(fd, frame)
