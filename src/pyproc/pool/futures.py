"""Calls that nobody waits for: each is lent a worker, or stands in the queue, like any other, and its outcome goes to a future.

    submit ──an idle worker──▶ begin ─────────────▶ a thread sends and receives ──▶ result | exception
           ──none────────────▶ queue ──its worker──▶ a thread begins it, and so on
                                     ──too late, the pool ends──▶ a thread says so
                                     ──Future.cancel──▶ it leaves the queue

A thread is taken only by a call that has a worker, or whose wait has ended; one that gives its worker to a waiting call goes on
with that call, as to wake another thread for it costs as much as the call. Not where its future has callbacks: they may take
their time, or call the pool, and the waiting call has its worker already. So the number of threads has no bound of its own.
The supervision thread looks at the deadlines of what waits, as at those of what runs; it never runs a callback.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pyproc.errors import Unavailable
from pyproc.pool.admission import Span
from pyproc.pool.checkout import Waiter
from pyproc.pool.converse import converse
from pyproc.pool.core import Core
from pyproc.supervisor.state import Worker

THREADS_MAX = 1 << 20  # the executor wants a number; an idle thread is used again before another one is started
Callback = Callable[[Future[Any]], object]


class Submission(Future[Any]):
    """One call. `waiter` while it stands in the queue, else `begun`: its worker and its frame. `waits_again`: its thread may wait for
    a worker, and cannot keep another call that has one."""

    waits_again = False

    def __init__(self, core: Core, method: str) -> None:
        super().__init__()
        self.method = method
        self.waiter: Waiter | None = None
        self.begun: tuple[Worker, bytes] | None = None
        self._core = core
        self._lock = threading.Lock()
        self._callbacks: list[Callback] | None = []  # None when they were taken

    def add_done_callback(self, fn: Callback) -> None:
        """As Future's; who settles this runs them, after it was told whether there are any."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(fn)
                return
        super().add_done_callback(fn)  # it is done: at once

    def cancel(self) -> bool:
        """As Future's: True where the call has not begun; it leaves the queue."""
        cancelled = super().cancel()
        if cancelled and self.waiter is not None and self._core.forsake(self.waiter):
            self.set_running_or_notify_cancel()  # or nobody who waits for it hears of it
            self.call_back(self.taken())
        return cancelled

    def taken(self) -> list[Callback]:
        """It is done: the callbacks so far, which are the caller's to run; later ones are run as they are added."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        return callbacks

    def call_back(self, callbacks: list[Callback]) -> None:
        """Run them, as Future does."""
        for callback in callbacks:
            super().add_done_callback(callback)

    def settle(self) -> list[Callback]:
        """Have the call done, in a thread; the callbacks, as `taken`."""
        try:
            if self.begun is None and not self._begin():
                return self.taken() if self.cancelled() else []  # cancelled, or woken twice
            worker, frame = self.begun  # type: ignore[misc]
            result = self.converse(worker, frame)
        except BaseException as error:  # noqa: BLE001 - whatever a call raises is its future's, as an executor has it
            self.set_exception(error)
        else:
            self.set_result(result)
        return self.taken()

    def _begin(self) -> bool:
        core, waiter = self._core, self.waiter
        if waiter is None or not core.checkout.leave(waiter):
            return False
        if not self.set_running_or_notify_cancel():
            core.withdrawn(waiter, "cancelled")
            return False
        worker, body, span = core.granted(waiter, self.method)
        try:
            self.begun = worker, self.begin(worker, body, span)
        except BaseException as error:
            core.not_begun(worker, span, error)
            raise
        return True

    def begin(self, worker: Worker, body: Any, span: Span) -> bytes:
        """Its frame, as `Core.begin`."""
        return self._core.begin(worker, self.method, body, span, False)

    def converse(self, worker: Worker, frame: bytes) -> Any:
        """Its result, or raise what it is refused with."""
        return converse(self._core, worker, frame)

    def fail(self, error: Exception) -> None:
        """No thread can be had for it."""
        core, told = self._core, Unavailable(f"no thread can be started for a call of {self.method!r}: {error}")
        if self.begun is not None:
            core.left(self.begun[0], self.begun[0].call_id)
        elif self.waiter is None or not core.checkout.leave(self.waiter):
            return
        else:
            core.withdrawn(self.waiter, told.code)
            if not self.set_running_or_notify_cancel():
                return
        self.set_exception(told)
        self.call_back(self.taken())


class Submissions:
    """The futures of one pool, and the threads that settle them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._threads = ThreadPoolExecutor(THREADS_MAX, "pyproc-submit")
        self._here = threading.local()  # `.next`: in a thread that is about to be free, room for one call to go on with

    def start(self, call: Submission, body: Any, timeout: float | str | None) -> None:
        """Have `call` begin, or wait, or hold why it does not."""
        try:
            if not self._begin(call, body, timeout):
                return  # it stands in the queue
        except Exception as error:  # noqa: BLE001 - as above
            call.set_exception(error)
            call.taken()
            return
        call.set_running_or_notify_cancel()
        self._hand_over(call)
        return

    def close(self) -> None:
        """No thread is started any more; what runs goes on."""
        self._threads.shutdown(wait=False)

    def _begin(self, call: Submission, body: Any, timeout: float | str | None) -> bool:
        """Whether it has begun. Raises what `submit` is refused with."""
        core, worker, span = self._core, None, None
        try:
            worker, span = core.lend(call.method, timeout, body)
            if worker is None:
                self._queue(call, body, span)
                return False
            call.begun = worker, call.begin(worker, body, span)
        except BaseException as error:
            core.not_begun(worker, span, error)
            raise
        return True

    def _queue(self, call: Submission, body: Any, span: Span) -> None:
        call.waiter = Waiter(lambda: self._woken(call), span, watched=True)
        self._core.queue(call.waiter, call.method, body, stream=False)
        self._core.watch(call.waiter.deadline)

    def _woken(self, call: Submission) -> None:
        """Its wait is over. Called from any thread, and raises nothing."""
        room: list[Submission] | None = getattr(self._here, "next", None)
        if room == []:
            room.append(call)
        else:
            self._hand_over(call)

    def _hand_over(self, call: Submission) -> None:
        try:
            self._threads.submit(self._run, call)
        except RuntimeError as error:
            call.fail(error)

    def _run(self, first: Submission) -> None:
        """In a thread: settle `first`, then the call that its worker was given to, and so on."""
        call: Submission | None = first
        while call is not None:
            if call.done():
                return  # the executor kept what it could not start a thread for
            room: list[Submission] = []
            self._here.next = None if call.waits_again else room
            callbacks = call.settle()
            self._here.next = None
            if room and callbacks:
                self._hand_over(room.pop())
            call.call_back(callbacks)
            call = room.pop() if room else None
