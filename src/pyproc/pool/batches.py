"""`map`: many calls of one function, those that take little time in one request.

    bodies ──n at a time──▶ Batch ──as a Submission: lent a worker, or queued──▶ a thread sends it and receives its parts
    results ◀──in order──── Batch.arrivals ◀─────────────────────────────────────────────────┘
                                     what did not begin ──▶ the queue, and another turn

How many items the next batch takes is `next_size`. One item is a plain call, so that slow or large items, and a pool whose workers
serve one call each, are served as by `submit`.

Each item is a call in the ledger: of a batch that waits the first one is accepted, the others when it begins. Its time begins
with the answer before it at the latest, and the supervisor ends a worker that answers nothing for so long: the item that it owes
first is `deadline_exceeded`. Of a batch whose worker is lost the answers that came stand, the first item without one gets the
error, and what stands behind it is counted as lost: it may have run, and is not run again. Only items of an idempotent function
are, each alone, so that the one that kills is found.

A worker that answers an item wrongly, twice, or none at all has broken the protocol. One that ends a batch before its last item
has not begun the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, islice
from queue import SimpleQueue
from time import monotonic
from typing import Any

from msgspec import Raw

from pyproc.errors import CallError, DeadlineExceeded, InvalidArgument, PayloadTooLarge, WorkerLost
from pyproc.pool.admission import Span, seal
from pyproc.pool.converse import converse
from pyproc.pool.core import Core
from pyproc.pool.futures import Submission
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import MESSAGEPACK, Answered, Failed, Succeeded
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.limits import BATCH_ITEMS

FIRST_ITEMS = 1  # what an item takes is not known then
TURN_SECONDS = 0.01  # a batch is meant to take so long: others wait for its worker
BATCH_BYTES = 1 << 18  # requests and answers of one batch, about
SLICE_SECONDS = 0.005  # an answer may be kept back for so long, by a worker that has more to do


def next_size(size: int, items: int, seconds: float, octets: int) -> int:
    """How many items a batch takes, after one in which `items` were answered took `seconds` and `octets`: twice as many
    while that is short, and no more than fit into a turn; 1 to BATCH_ITEMS."""
    fitting = items * min(TURN_SECONDS / max(seconds, 1e-9), BATCH_BYTES / max(octets, 1))
    if fitting >= 2 * items:
        return min(max(size, 2 * items), BATCH_ITEMS)
    return max(1, min(int(fitting), 2 * size, BATCH_ITEMS))


class Pace:
    """Of one map: the size of its next batch."""

    def __init__(self, limit: int) -> None:
        self.limit = limit or BATCH_ITEMS
        self.size = min(FIRST_ITEMS, self.limit)

    def told(self, items: int, seconds: float, octets: int) -> None:
        """How a batch went."""
        self.size = min(next_size(self.size, items, seconds, octets), self.limit)


class Batch(Submission):
    """`items` calls of one method; from two on `sealed` is the list of their bodies. `arrivals`: lists of results, and errors, and
    None when no more will come. `unwanted`: nobody waits for what has not begun."""

    def __init__(self, core: Core, method: str, items: int, pace: Pace) -> None:
        super().__init__(core, method)
        self.items = items
        self.sealed = Raw(b"")
        self.arrivals: SimpleQueue[list[Any] | CallError | None] = SimpleQueue()
        self.unwanted = False
        self.waits_again = items > 1
        self._pace = pace
        self._open = 0  # items that were accepted and not counted, besides one that waits
        self._asked = 0  # items that the worker was asked for
        self._span = Span.of(1)

    def results(self) -> Iterator[list[Any]]:
        """Its results as they come, some at a time. Raises the first error, in its place."""
        for arrival in iter(self.arrivals.get, None):
            if type(arrival) is not list:
                raise arrival
            yield arrival
        single = self.result()
        if self.items == 1:
            yield [single]

    def set_result(self, result: Any) -> None:
        """As Future's."""
        super().set_result(result)
        self.arrivals.put(None)

    def set_exception(self, error: BaseException | None) -> None:
        """As Future's."""
        super().set_exception(error)
        self.arrivals.put(None)

    def begin(self, worker: Worker, body: Any, span: Span) -> bytes:
        """Its frame, as `Core.begin`; the others are accepted with the first one, whose time in the queue they did not spend."""
        if self.items == 1:
            return super().begin(worker, body, span)
        self._span = Span.of(span.whole)._replace(new=0)
        frame = self._begin_batch(worker, body, span.new)
        ledger, others = self._core.ledger, self.items - 1
        ledger.accepted += others
        self._open = others + 1
        return frame

    def _begin_batch(self, worker: Worker, body: Raw, new: int) -> bytes:
        span = self._span._replace(seconds=self._span.seconds + SLICE_SECONDS, new=new)
        self._asked = int(min(self._open or self.items, self._core.calls_left(worker)))
        return self._core.begin(worker, self.method, body, span, False, self._asked)

    def converse(self, worker: Worker, frame: bytes) -> Any:
        """Its result, of one item. Of several none: they are in `arrivals`."""
        if self.items == 1:
            since = monotonic()
            result = super().converse(worker, frame)
            self._pace.told(1, monotonic() - since, len(frame))
            return result
        try:
            alone = self._turn(worker, frame)
            while self._open and not self.unwanted:
                alone = self._again(alone=alone)
        except CallError as error:
            self.arrivals.put(error)
        finally:
            for _ in range(self._open):
                self._core.ledger.count("cancelled" if self.unwanted else "worker_lost")
        return None

    def fail(self, error: Exception) -> None:
        """As Submission's; the others were accepted with the first one."""
        super().fail(error)
        for _ in range(self._open - 1):
            self._core.ledger.count("cancelled")
        self._open = 0

    def _turn(self, worker: Worker, frame: bytes) -> bool:
        """Send the batch, and take what is answered; whether what is left is to be sent one by one. Raises CallError."""
        core, id, channel, ended = self._core, worker.call_id, worker.channel, worker.finished.is_set
        since, answered, octets, seconds = monotonic(), 0, len(frame), self._span.seconds + SLICE_SECONDS
        try:
            with core.losing(worker):
                channel.send(frame, ended)
            while True:
                with core.losing(worker):
                    data = channel.receive(ended)
                    events = worker.connection.receive(data)
                octets += len(data)
                for event in events:
                    if type(event) is Answered:
                        answered += self._answered(worker, event)
                        worker.deadline = monotonic() + seconds
                        continue
                    if not isinstance(event, Succeeded | Failed):
                        raise core.lost(worker)
                    if worker.connection.mid_frame:
                        raise core.lost(worker, RemoteProtocolError("bytes follow the answer"))
                    if event.output:
                        core.supervisor.drain(worker)
                    worker.calls += max(0, answered - 1)
                    core.give_back(worker)
                    self._pace.told(max(answered, 1), monotonic() - since, octets)
                    return type(event) is not Succeeded
        except (WorkerLost, DeadlineExceeded):
            self._open -= 1  # it was counted
            if not self._open or self._asked == 1 or not self._idempotent:
                raise
            core.ledger.accepted += 1  # and is a call once more
            self._open += 1
            return True
        except CallError:
            self._open -= 1
            raise
        except BaseException:
            core.left(worker, id)
            self._open -= 1
            raise

    @property
    def _idempotent(self) -> bool:
        return bool(self._core.supervisor.functions.get(self.method, {}).get("idempotent"))

    def _answered(self, worker: Worker, event: Answered) -> int:
        count = len(event.values)
        if event.failure is not None:
            self._open -= 1
            self.arrivals.put(self._core.failure(worker, event.failure))
            return 1
        self._open -= count
        self._core.ledger.ok += count
        self.arrivals.put(event.values)
        return count

    def _again(self, *, alone: bool) -> bool:
        """Wait for a worker, and have it do what is left, or the first of it `alone`; as `_turn`."""
        core, left = self._core, self._open
        bodies = MESSAGEPACK.decode(self.sealed, list[Raw])[-left:]
        try:
            worker, span = core.await_again(self.method, self._span)
        except CallError as error:
            for _ in range(left - 1):  # it was counted itself
                core.ledger.count(error.code)
            self._open = 0
            raise
        body = bodies[0] if alone else Raw(MESSAGEPACK.encode(bodies))
        try:
            frame = core.begin(worker, self.method, body, span, False) if alone else self._begin_batch(worker, body, 0)
        except BaseException as error:
            self._open -= 1
            core.not_begun(worker, span, error)
            raise
        if not alone:
            return self._turn(worker, frame)
        self._open -= 1
        try:
            self.arrivals.put([converse(core, worker, frame)])
        except CallError as error:
            self.arrivals.put(error)
        return True


class Results(chain[Any]):
    """What `Pool.map` gives. A chain of lists, as a generator that gives each item costs as much as an item of a batch."""

    lists: Generator[list[Any], None, None]

    @classmethod
    def of(cls, lists: Generator[list[Any], None, None]) -> Results:
        """The items of `lists`, as they come."""
        made: Results = cls.from_iterable(lists)  # type: ignore[assignment]
        made.lists = lists
        return made

    def close(self) -> None:
        """Nothing more is sent, and what waits is cancelled; results that have arrived can still be taken."""
        self.lists.close()


def results(
    core: Core, submit: Callable[[Batch, Any, float | str | None], Batch], method: str, bodies: Iterable[Any],
    timeout: float | str | None,
) -> Generator[list[Any], None, None]:
    """The results in order, some at a time."""
    pace, window, source = Pace(core.options.max_requests), deque[Batch](), iter(bodies)
    bound, taken = 2 * core.options.spec.workers, list[Any]()
    try:
        while True:
            taken += islice(source, max(0, pace.size - len(taken)))
            if not taken:
                break
            batch, body, items = _batch(core, method, taken, pace)
            del taken[:items]
            window.append(submit(batch, body, timeout))
            while window and (len(window) >= bound or core.checkout.is_full):
                yield from window[0].results()
                window.popleft()
        while window:
            yield from window[0].results()
            window.popleft()
    finally:
        for batch in window:
            batch.unwanted = True
            batch.cancel()


def _batch(core: Core, method: str, taken: list[Any], pace: Pace) -> tuple[Batch, Any, int]:
    """A batch of the first of `taken`, its body, and how many they are: what cannot be sent together is sent apart, and what cannot
    be sent alone is refused as a call of its own."""
    items = min(len(taken), pace.size)
    while items > 1:
        batch = Batch(core, method, items, pace)
        try:
            batch.sealed = seal(method, taken[:items], Span.of(core.options.timeout), core.options.spec.limits.request, stream=False)
        except (InvalidArgument, PayloadTooLarge):
            items //= 2
            continue
        return batch, batch.sealed, items
    return Batch(core, method, 1, pace), taken[0], 1
