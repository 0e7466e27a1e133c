"""A caller that gave up: its call is cancelled, and the worker is ended if it does not answer within the grace.

One that gave up while its request was only partly sent ends the worker: whatever is written next would be taken for the rest of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pyproc.supervisor.loop import Loop
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed, Succeeded
from pyproc_wire.errors import WireError

GRACE_SECONDS = 0.5  # code that still runs this long after its caller gave up is killed (contract, section 10)


class Cancel:
    """`condemn(worker, reason)` ends a worker, `free(worker)` tells that it can be lent again."""

    def __init__(self, loop: Loop, condemn: Callable[[Worker, str], None], free: Callable[[Worker], None]) -> None:
        self._loop = loop
        self._condemn = condemn
        self._free = free

    def abandon(self, worker: Worker) -> None:
        """Nobody waits for the worker's present call any more."""
        if worker.death is not None:
            with worker.holding:
                worker.channel.close()  # it was left open for the caller, who does not come any more
            return
        worker.abandoned = worker.call_id
        if worker.doomed is not None or not worker.call_id:
            return
        if worker.channel.sending:
            self._condemn(worker, "cancelled")
            return
        if worker.call_id not in worker.connection.open_calls and not worker.connection.mid_frame:
            self._freed(worker)  # its answer had arrived
            return
        worker.deadline = time.monotonic() + GRACE_SECONDS
        waits = worker.channel.waits
        try:
            frame = worker.connection.cancel(worker.call_id)
            os.write(worker.channel.requests, frame)  # below PIPE_BUF: all of it, or BlockingIOError
            worker.channel.set_waiting(waits=False)
            self._loop.watch(worker.channel.answers, lambda: self._settle(worker, waits=waits))
        except (OSError, WireError):
            self._condemn(worker, "cancelled")

    def _settle(self, worker: Worker, *, waits: bool) -> None:
        """Throw away what an abandoned call still answers; its end gives the worker back."""
        try:
            events = worker.connection.receive(worker.channel.receive(worker.finished.is_set))
        except BlockingIOError:
            return
        except (OSError, WireError):
            self._loop.unwatch(worker.channel.answers)
            self._condemn(worker, "protocol")
            return
        for event in events:
            if isinstance(event, (Succeeded, Failed)) and event.id == worker.abandoned:
                self._loop.unwatch(worker.channel.answers)
                worker.channel.set_waiting(waits=waits)
                self._freed(worker)
                return

    def _freed(self, worker: Worker) -> None:
        worker.abandoned, worker.call_id = 0, 0
        self._free(worker)
