"""What a dispatcher keeps of a call and of a worker: who waits, what was sent, how it ended. It decides nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyproc.link.channel import WHOLE_BYTES
from pyproc.pool.admission import Span, request
from pyproc.pool.checkout import Waiter
from pyproc.pool.ear import Ear
from pyproc.pool.lane import Lane
from pyproc.supervisor.state import Worker

if TYPE_CHECKING:
    from pyproc.pool.dispatcher import Dispatcher


class Call(Waiter):
    """One call. `lane` while it is outstanding on a worker; `whole`: its frame is one packet; `ended`: it is counted; `gone`: nobody
    waits for it any more; `done`: its `value` or `error` is there, and `future` told, if somebody has to wait for that."""

    __slots__ = ("dispatcher", "done", "ended", "error", "frame", "future", "gone", "id", "lane", "method", "value", "whole")

    def __init__(self, dispatcher: Dispatcher, method: str, span: Span) -> None:
        super().__init__(_never, span, watched=True)
        self.dispatcher = dispatcher
        self.method = method
        self.future: asyncio.Future[None] | None = None
        self.value: Any = None
        self.error: Any = None
        self.lane: WorkerLane | None = None
        self.id = 0
        self.frame = b""
        self.whole = self.ended = self.gone = self.done = False

    def seal(self, method: str, body: Any, limit: int, *, stream: bool) -> None:
        """As Waiter's: the whole request."""
        self.id = next(self.dispatcher.ids)
        self.frame = request(self.id, method, body, self.span, limit)
        self.whole = len(self.frame) <= WHOLE_BYTES

    def wake(self) -> None:
        """Its wait is over, or its time. From any thread."""
        try:
            self.dispatcher.loop.call_soon_threadsafe(self.dispatcher.woken, self)
        except RuntimeError:  # the loop was closed with this call in it: nobody waits any more
            self.dispatcher.forsake(self)

    def finish(self, value: Any, error: BaseException | None = None) -> None:
        """It ended, and is counted."""
        self.value, self.error = value, error
        self.done = self.ended = True
        if self.future is not None and not self.future.done() and not self.dispatcher.loop.is_closed():
            self.future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """It ended with `error`, and is counted."""
        self.finish(None, error)

    def taken_error(self) -> Any:
        """Its error, which is held by nobody else then: it holds whoever raises it."""
        error, self.error = self.error, None
        return error


def _never() -> None:
    """In the place of a Waiter's `wake`, which a Call has itself."""


class WorkerLane(Lane[Call]):
    """The lane of `worker`. `rest`: of a frame that its pipe had no room for; `held`: its worker is ours."""

    __slots__ = ("ear", "held", "rest", "worker")

    def __init__(self, worker: Worker, ear: Ear, limit: int, quota: float, looking: set[str]) -> None:
        super().__init__(limit, quota, looking)
        self.worker = worker
        self.ear = ear
        self.rest = memoryview(b"")
        self.held = False

    @property
    def room(self) -> bool:
        """Whether one more may be sent: not behind a call whose caller is gone, as it ends with its worker."""
        return super().room and self.worker.doomed is None and not (self.calls and self.calls[0].gone)
