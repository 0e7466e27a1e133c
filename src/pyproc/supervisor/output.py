"""What a worker writes to its standard streams: drained so that it never blocks, counted to the call, cut at the limit.

A worker that keeps writing far beyond the limit is ended; the rest is thrown away and counted. The text goes to the log as
one escaped line of fields: it is the worker's, and may be anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from pyproc.supervisor.loop import Loop
from pyproc.supervisor.state import Worker
from pyproc_wire.limits import RECV_BYTES

log = logging.getLogger("pyproc")
KILL_FACTOR = 16  # times the limit, within one call
READS = 16  # of RECV_BYTES in one turn: the others wait meanwhile


class Output:
    """`limit`: bytes of one call that are kept; `condemn(worker, reason)` ends a flood."""

    def __init__(self, pool: str, limit: int, loop: Loop, condemn: Callable[[Worker, str], None]) -> None:
        self.dropped = 0
        self._pool = pool
        self._limit = limit
        self._loop = loop
        self._condemn = condemn

    def drain(self, worker: Worker) -> None:
        """Take what is there in both pipes."""
        for fd in worker.outputs:
            self.drain_one(worker, fd)

    def drain_one(self, worker: Worker, fd: int) -> None:
        """Take what is there in one pipe, within READS."""
        for _ in range(READS):
            if fd not in worker.outputs:
                return  # an order for one that was buried meanwhile
            try:
                text = os.read(fd, RECV_BYTES)
            except OSError:  # nothing there
                return
            if not text:
                self._loop.unwatch(fd)
                return
            self._count(worker, fd, text)

    def spoke(self, source: str, text: bytes) -> None:
        """What a zygote wrote, or a script that could not be loaded."""
        log.info("output pool=%s source=%s text=%s", self._pool, source, printable(text.decode(errors="replace")))

    def _count(self, worker: Worker, fd: int, text: bytes) -> None:
        if worker.calls != worker.spoken_call:
            worker.spoken, worker.spoken_call = 0, worker.calls
        room = max(0, self._limit - worker.spoken)
        worker.spoken += len(text)
        told = printable(text[:room].decode(errors="replace"))
        if told:  # a read may hold the end of a line alone, and tells nothing then
            stream = "stdout" if fd == worker.outputs[0] else "stderr"
            log.info("output pool=%s worker=%s call=%d stream=%s text=%s", self._pool, worker.name, worker.calls, stream, told)
        self.dropped += max(0, len(text) - room)
        if worker.spoken > KILL_FACTOR * self._limit:
            self._condemn(worker, "output_limit")


def printable(text: str) -> str:
    """Foreign text as one line of ASCII."""
    return text.rstrip("\n").encode("unicode_escape", "backslashreplace").decode("ascii")
