"""Lends idle workers, first come first served, and nobody waits under a lock.

An idle worker is taken without a lock (deque.pop is atomic) unless somebody is queued; a worker that comes back goes to the
first in the queue. Both sides append first and look then, which excludes a lost wake-up: whoever comes second sees what the
first one appended.

No worker is lost to a signal handler that raises (Ctrl-C). CPython runs handlers when a function is entered, after a call into C
and at a backward jump, and not in the step of a `for`: `take` takes by one, so that the worker stands in a name at once. Who
gives one back appends it in the same breath in which the call ends (`Core.over`).

Where each call has a process of its own (`places`), workers are forked ahead. One that comes takes a place or is parked; whoever ends
one frees its place, and a parked one takes that. So `idle` never holds more than may run, and `take` needs no look at it. Between two
writes of that nothing is called, for the same reason; the lock may be taken again by a handler, or by a View that is collected.

A wait ends once, by whoever calls `leave` first: with the worker that was given, or with None because the pool ended, the
time was over, or the caller went.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from msgspec import Raw

from pyproc.errors import ResourceExhausted
from pyproc.pool.admission import Span, seal
from pyproc.pool.ledger import Ledger
from pyproc.supervisor.state import Worker

RETRY_SECONDS = 0.05  # told to a caller whom a full queue refused


class Waiter:
    """One queued call. `wake` is called from whatever thread gives a worker back, and does not raise: others are woken after it.
    `over`: it is not accepted yet, or begins, or was counted as one that does not. `dismissed`: it stands in the queue no more,
    although nobody ended its wait. `worker` is what was given, and stays what it is from `leave` on; `deadline` stands on
    time.monotonic(), and is `watched` where whoever waits has no clock of its own: `wake` may be called twice then."""

    __slots__ = ("_wake", "body", "deadline", "dismissed", "left", "over", "span", "watched", "worker")

    def __init__(self, wake: Callable[[], None], span: Span, *, watched: bool = False) -> None:
        self._wake = wake
        self.span = span
        self.deadline = monotonic() + span.seconds
        self.watched = watched
        self.body = Raw(b"")
        self.worker: Worker | None = None
        self.left = False
        self.dismissed = False
        self.over = True

    def seal(self, method: str, body: Any, limit: int, *, stream: bool) -> None:
        """Keep the body as it is now. Raises InvalidArgument, PayloadTooLarge."""
        self.body = seal(method, body, self.span, limit, stream=stream)

    def wake(self) -> None:
        """Tell whoever waits."""
        self._wake()


class Checkout:
    """The idle workers of a pool, and the calls that wait for one: at most `limit`, each accepted as it joins. Whoever appends to
    `idle` calls `match` then if there are `waiters`."""

    def __init__(self, limit: int, ledger: Ledger, places: float = math.inf) -> None:
        self.limit = limit
        self.parked: deque[Worker] = deque()
        self._parkings = iter(self.parked.popleft, None)
        self._vacant = places
        self._placing = threading.RLock()
        self._unused = 0
        self._ledger = ledger
        self.idle: deque[Worker] = deque()
        self._takings = iter(self.idle.pop, None)
        self.waiters: deque[Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return len(self.waiters)

    @property
    def is_full(self) -> bool:
        """Whether a call that came now would be refused."""
        return not self.idle and len(self.waiters) >= self.limit

    def take(self, wanted: Worker | None = None, *, queued: bool = False) -> Worker | None:
        """An idle worker, `wanted` if it is idle, or None when the call has to queue. `queued`: for the first in the queue."""
        if self.waiters and not queued:
            return None
        if wanted is not None and self.withdraw(wanted) and wanted.doomed is None:
            return wanted
        while True:
            try:
                for worker in self._takings:  # noqa: B007 - see above
                    break
            except IndexError:
                return None
            if worker.doomed is None:
                return worker

    def give(self, worker: Worker) -> None:
        """`worker` is idle."""
        self.idle.append(worker)
        if self.waiters:
            self.match()

    def arrive(self, worker: Worker) -> bool:
        """A new worker takes a place or is parked; whether a call waited for it that might have run."""
        with self._placing:
            awaited = self._vacant > 0 and bool(self.waiters)
            worker.parked = True
            self.parked.append(worker)
            self._place()
        if self.waiters:
            self.match()
        return awaited

    def vacate(self, worker: Worker) -> bool:
        """`worker` ended, or is ending and serves nobody any more: its place is a parked one's. Whether it was idle, or parked."""
        with self._placing:
            idle = self.withdraw(worker)
            if worker.placed:
                worker.placed = False
                self._vacant += 1
            elif worker.parked:
                idle = True
                worker.parked = False
                with contextlib.suppress(ValueError):
                    self.parked.remove(worker)
            self._place()
        if self.waiters:
            self.match()
        return idle

    def unused(self) -> int:
        """The fewest that were parked since this was asked last."""
        with self._placing:
            unused, self._unused = self._unused, len(self.parked)
        return unused

    def unpark(self) -> Worker | None:
        """One that is parked, to be ended."""
        with self._placing:
            return next(self._parkings) if self.parked else None

    def _place(self) -> None:
        while self.parked and self._vacant > 0:
            for worker in self._parkings:  # noqa: B007 - see above
                break
            self._vacant -= 1
            worker.parked = False
            worker.placed = True
            self.idle.append(worker)
        self._unused = min(self._unused, len(self.parked))

    def withdraw(self, worker: Worker) -> bool:
        """`worker` ended; whether it was idle. If somebody is using it, its channel tells them."""
        try:
            self.idle.remove(worker)
        except ValueError:
            return False
        return True

    def check_room(self) -> None:
        """Raise ResourceExhausted if one more would not find room: before any work is done for it."""
        if len(self.waiters) >= self.limit:
            raise ResourceExhausted(f"queue is full with {self.limit} calls; try again later or give the pool more workers",
                                    bound="queue", retry_after=RETRY_SECONDS)

    def enqueue(self, waiter: Waiter) -> None:
        """Join the queue. Raises ResourceExhausted when it is full."""
        with self._lock:
            self.check_room()
            waiter.over = False  # no call is made between these two, and so no signal handler runs
            self._ledger.accepted += 1
            self.waiters.append(waiter)
        if self.idle:
            self.match()

    def rejoin(self, waiter: Waiter) -> None:
        """Join the queue again, without bound, with a call that was accepted."""
        with self._lock:
            waiter.over = waiter.dismissed = False
            self.waiters.append(waiter)
        if self.idle:
            self.match()

    def leave(self, waiter: Waiter) -> bool:
        """End the wait; True for the first who does, to whom the call belongs with the worker that was given."""
        with self._lock:
            if waiter.left:
                return False
            waiter.left = True
            if waiter.worker is None:
                try:
                    self.waiters.remove(waiter)
                except ValueError:  # dismissed
                    pass
            return True

    def overdue(self, now: float) -> float:
        """Wake those of the watched whose deadline has come; the earliest one of the others."""
        earliest, late = math.inf, []
        with self._lock:
            for waiter in self.waiters:
                if not waiter.watched:
                    continue
                if waiter.deadline > now:
                    earliest = min(earliest, waiter.deadline)
                else:
                    waiter.watched = False
                    late.append(waiter)
        for waiter in late:
            waiter.wake()
        return earliest

    def dismiss(self) -> None:
        """Nobody will be served: wake all who wait, with nothing."""
        with self._lock:
            waiting, self.waiters = self.waiters, deque()
            for waiter in waiting:
                waiter.dismissed = True
        for waiter in waiting:
            waiter.wake()

    def forget(self) -> None:
        """After a fork, in the child: nobody here waits or is lent."""
        self.idle.clear()
        self.parked.clear()
        self.waiters.clear()

    def match(self) -> None:
        """Give idle workers to those who wait."""
        woken: list[Waiter] = []
        try:
            with self._lock:
                while self.waiters and (worker := self.take(queued=True)) is not None:
                    waiter = self.waiters[0]
                    waiter.worker = worker
                    woken += (waiter,)
                    self.waiters.popleft()
        finally:
            for waiter in woken:
                waiter.wake()
