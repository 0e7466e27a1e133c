"""What both faces of a pool share: a call from its first check to its value or error. Nothing here waits for an answer.

    lend a worker, or queue (checkout) -> begin -> [the face sends, and receives events] -> finish | lost | abandoned

Each accepted call is counted once at its begin and once at its end, whatever that is. A refusal is a typed error, never a
hang. What is done for each call is written out in `begin`, `succeeded` and `over`; all else is in other functions.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from pyproc.errors import (
    SHUTDOWN,
    CallError,
    DeadlineExceeded,
    PyprocError,
    Unavailable,
)
from pyproc.pool import failures, placed
from pyproc.pool.admission import UNSENDABLE, Span, parse_grace, parse_part_timeout, parse_timeout, unsendable
from pyproc.pool.checkout import Checkout, Waiter
from pyproc.pool.ledger import Ledger
from pyproc.pool.options import Options
from pyproc.pool.placed import Placed
from pyproc.pool.view import View
from pyproc.supervisor.children import Supervisor
from pyproc.supervisor.state import Worker
from pyproc_wire import polling
from pyproc_wire.connection import Failed, Part, Succeeded
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, printable

if TYPE_CHECKING:
    from pyproc.pool.ear import Ear
    from pyproc.pool.executor import FunctionSender

log = logging.getLogger("pyproc")
_live: weakref.WeakSet[Core] = weakref.WeakSet()


class Core:
    """One pool. Raises ConfigError, ProtectionUnavailable."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ledger = Ledger()
        self.checkout = Checkout(self.options.queue, self.ledger, self.options.places)
        self.closed: PyprocError | None = None
        self.closing = False
        self.ears: Mapping[Worker, Ear] = {}
        self._opens = math.inf  # time.monotonic() when a pool that is closed for a time will serve again
        self.owner = os.getpid()
        self._max_requests = self.options.max_requests
        self.placed = Placed()
        self._blocks = self.placed.blocks
        self._functions: dict[str, Any] = {}
        self._sender: FunctionSender | None = None
        self._making_sender = threading.Lock()
        self._spans: dict[str, Span] = {}
        self.supervisor = Supervisor(self.options.spec, self)
        _live.add(self)
        try:
            self.supervisor.start()
        except PyprocError as error:
            self.closed = error
            raise
        except BaseException:  # Ctrl-C
            self.supervisor.end()
            self.closed = Unavailable("the pool was not started", reason=SHUTDOWN)
            raise

    # Told by the supervisor.

    def worker_ready(self, worker: Worker) -> bool:
        """A new worker can be lent; whether a call waited for it that might have run."""
        if self.supervisor.functions is not self._functions:
            self._functions, most = self.supervisor.functions, self.options.timeout
            self._spans = {name: Span.of(min(most, what["timeout"] or most)) for name, what in self._functions.items()}
        return self.checkout.arrive(worker)

    def unused(self) -> int:
        """The workers that stayed parked since this was asked last."""
        return self.checkout.unused()

    def unpark(self) -> Worker | None:
        """One that is parked, to be ended."""
        return self.checkout.unpark()

    def worker_gone(self, worker: Worker) -> bool:
        """A worker ended; whether it was idle, so that nobody needs to know."""
        return self.checkout.vacate(worker)

    def failed(self, error: PyprocError | None) -> None:
        """The pool cannot serve (or can again, with None): whoever is queued gets the error."""
        if error is None and self.closing:
            return
        if isinstance(error, CallError) and error.retry_after is not None:
            self._opens = monotonic() + error.retry_after
        self.closed = error
        if error is not None:
            self.checkout.dismiss()

    def ended(self) -> None:
        """Nothing of the pool is left."""
        _live.discard(self)

    # Before a call.

    def refuse_closed(self) -> None:
        """Raise why this pool serves nothing; the call is rejected."""
        error = self._closed_error()
        if error is not None:
            self.ledger.reject(error)
            raise error

    def _closed_error(self) -> PyprocError | None:
        error = self.closed
        if os.getpid() != self.owner:
            return PyprocError(f"this pool was made in process {self.owner} and cannot be used after a fork; make one here")
        if isinstance(error, CallError):
            left = None if error.retry_after is None else max(0.0, self._opens - monotonic())
            return type(error)(error.message, reason=error.reason, retry_after=left)
        return error

    def queue(self, waiter: Waiter, method: str, body: Any, *, stream: bool) -> None:
        """Join the queue with a call, whose body is encoded for that. Raises CallError for one that is not accepted."""
        try:
            self.checkout.check_room()
            waiter.seal(method, body, self.options.spec.limits.request, stream=stream)
            self.checkout.enqueue(waiter)
        except CallError as error:
            self.ledger.reject(error)
            raise
        if self.closed is not None:
            self.checkout.dismiss()  # it ended before we stood there to be woken

    def granted(self, waiter: Waiter, method: str) -> tuple[Worker, Raw, Span]:
        """The worker that came, the body, and what is left of the time. Raises CallError when none came, or came too late."""
        self.checkout.leave(waiter)
        worker, left = waiter.worker, waiter.deadline - monotonic()
        if worker is not None and left > 0:
            span = waiter.span.left(left)
            waiter.over = True  # from here on the worker is the caller's
            return worker, waiter.body, span
        raise self.not_served(waiter, method)

    def not_served(self, waiter: Waiter, method: str) -> PyprocError:
        """Why a queued call, whose wait was ended, does not begin: no worker came, or too late. It is counted."""
        error = self._closed_error() if waiter.worker is None else None
        if error is None:
            allowed = self._allowed(method, waiter.span.whole)
            error = DeadlineExceeded(f"call of {method!r} found no idle worker within {allowed}; give it more time, or the pool more "
                                     "workers")
        self.withdrawn(waiter, error.code if isinstance(error, CallError) else "internal")
        return error

    def wait_again(self, waiter: Waiter) -> None:
        """Join the queue again with a call that was accepted, and has not begun."""
        self.checkout.rejoin(waiter)
        self.watch(waiter.deadline)
        if self.closed is not None:
            self.checkout.dismiss()

    def forsake(self, waiter: Waiter) -> bool:
        """The queued call is cancelled, unless its wait has ended already."""
        if not self.checkout.leave(waiter):
            return False
        self.withdrawn(waiter, "cancelled")
        return True

    def interrupted(self, waiter: Waiter) -> None:
        """Whoever waited goes for a reason of its own, also while it was told how its wait ended."""
        self.checkout.leave(waiter)
        self.withdrawn(waiter, "cancelled")

    def watch(self, deadline: float) -> None:
        """Have the supervision thread look at the deadlines when this one has come."""
        if deadline < self.supervisor.wake_at:
            self.supervisor.wake_at = deadline
            self.supervisor.poke()

    def overdue(self, now: float) -> float:
        """Told on the supervision thread: wake the queued calls whose time is over; when to look again."""
        return self.checkout.overdue(now)

    def withdrawn(self, waiter: Waiter, code: str) -> None:
        """A queued call, whose wait was ended by the caller of this, does not begin."""
        if waiter.over:
            return
        waiter.over = True
        self.ledger.count(code)
        if waiter.worker is not None:
            self.give_back(waiter.worker)

    # A call.

    def lend(self, method: str, timeout: float | str | None, body: Any) -> tuple[Worker | None, Span]:
        """An idle worker, or None when the call has to queue, and how long the call may take. Raises NotFound,
        InvalidArgument, DeadlineExceeded, Unavailable, PyprocError."""
        if self.closed is not None:
            self.refuse_closed()
        try:
            span = self._spans[method]
        except (KeyError, TypeError):
            unknown = failures.not_exposed(method, self._spans)
            self.ledger.reject(unknown)
            raise unknown from None
        if timeout is not None:
            try:
                span = Span.of(min(span.seconds, parse_timeout(timeout)))
            except CallError as error:
                self.ledger.reject(error)
                raise
        if self._blocks:
            return placed.take(self.placed, self.checkout, body), span
        return self.checkout.take(), span

    def lend_for_function(self) -> tuple[Worker | None, Span]:
        """As `lend`, for a function that is sent (`pool.executor`): it has no name that a caller could give. Raises Unavailable."""
        if self.closed is not None:
            self.refuse_closed()
        return self.checkout.take(), Span.of(self.options.timeout)

    def empty(self, shape: Any, dtype: Any) -> Any:
        """An array to build in place, as `placed` says."""
        if self.closed is not None:
            self.refuse_closed()
        worker = self.checkout.take() if self.options.isolation == "worker" else None
        try:
            return self.placed.build(worker, shape, dtype)
        finally:
            if worker is not None:
                self.give_back(worker)

    def begin(self, worker: Worker, method: str, body: Any, span: Span, stream: bool, batch: int = 0) -> bytes:  # noqa: FBT001 - as `request`
        """Encode the request and arm the deadline; the worker is busy from here on. Whatever is raised goes to `not_begun`."""
        id = next(worker.ids)
        seconds, milliseconds, new, worker.allowed = span
        worker.deadline = deadline = monotonic() + seconds
        try:
            frame = worker.connection.request(id, method, body, milliseconds, stream, None, None, batch)
        except BaseException:
            worker.connection.withdraw(id)
            raise
        worker.calls += 1  # no call is made in these four, and so no signal handler runs: the call is begun, or it is not
        worker.method = method
        worker.call_id = id
        self.ledger.accepted += new
        supervisor = self.supervisor
        if deadline < supervisor.wake_at:
            supervisor.wake_at = deadline
            supervisor.poke()
        return frame

    def took_up(self, worker: Worker, id: int, method: str, deadline: float, allowed: float) -> None:
        """Call `id`, which was encoded before, is the worker's first unanswered one: the call that its end is put to."""
        worker.deadline, worker.allowed = deadline, allowed
        worker.method = method
        worker.call_id = id
        self.watch(deadline)

    def not_begun(self, worker: Worker | None, span: Span | None, error: BaseException) -> None:
        """Of `error`, which came before the request was sent to the worker that was lent, if one was: the call is counted as what it
        became, and the worker given back. Raises what the caller is told, if that is not `error`."""
        if worker is None or span is None:
            return
        if worker.call_id:
            self.left(worker, worker.call_id)  # an interrupt, and it has begun
            return
        told = unsendable(error) if isinstance(error, UNSENDABLE) else None
        if not span.new:  # it was accepted when it queued
            self.ledger.count(told.code if told else "cancelled")
        elif told is not None:
            self.ledger.reject(told)
        self.give_back(worker)
        if told is not None:
            raise told from error

    def succeeded(self, worker: Worker, output: int) -> None:
        """The call's value is there, and it wrote `output` bytes. As `over`, written out."""
        if output:
            self.supervisor.drain(worker)
        if worker.calls >= worker.milestone:
            self.pass_milestone(worker)
        checkout = self.checkout
        self.ledger.ok += 1
        worker.call_id = 0
        checkout.idle.append(worker)
        if worker.doomed is not None or checkout.waiters:
            self._lend_on(worker)

    def over(self, worker: Worker, code: str) -> None:
        """The call ended with the error `code`: it is counted, and the worker lent to the next one. An interrupt (see `checkout`) comes
        before both, and the call is cancelled (`left`), or after both."""
        if worker.calls >= worker.milestone:
            self.pass_milestone(worker)
        self.ledger.count(code)
        worker.call_id = 0
        self.checkout.idle.append(worker)
        self._lend_on(worker)

    def finish(self, worker: Worker, event: Succeeded | Failed, *, lend: bool = False) -> Any:
        """The value of a success, or raise the error of a failure; the worker is given back first. With `lend` a View of the
        value, which keeps the worker. Raises CallError, and RemoteProtocolError for a worker that says more (half a message would
        spoil the next call) or no value."""
        if worker.connection.mid_frame:
            raise RemoteProtocolError("bytes follow the answer")
        if isinstance(event, Succeeded):
            try:
                value = worker.connection.value(event.body, views=lend)
            except LocalProtocolError as error:  # an array, where there is no numpy
                told = failures.unreadable(self.options.name, worker, error)
                self.over(worker, told.code)
                raise told from error
            if lend:
                return self._lent(worker, event.output, value)
            self.succeeded(worker, event.output)
            return value
        if event.output:
            self.supervisor.drain(worker)
        failure = failures.failed(self.supervisor.policy, self.options.name, worker, event)
        self.over(worker, failure.code)
        raise failure

    def failure(self, worker: Worker, failure: Failed | LocalProtocolError) -> CallError:
        """The error of an item of a batch, which is counted."""
        if isinstance(failure, LocalProtocolError):
            error = failures.unreadable(self.options.name, worker, failure)
        else:
            error = failures.failed(self.supervisor.policy, self.options.name, worker, failure)
        self.ledger.count(error.code)
        return error

    def calls_left(self, worker: Worker) -> float:
        """How many calls it may take before it is replaced."""
        return self._max_requests - worker.calls if self._max_requests else math.inf

    def await_again(self, method: str, span: Span) -> tuple[Worker, Span]:
        """A worker for a call that was accepted and has given its worker back. It stands behind all others and needs no room, as
        it has made some. Raises CallError, and it is counted then."""
        gate = threading.Lock()
        gate.acquire()
        waiter = Waiter(gate.release, span)
        try:
            self.checkout.rejoin(waiter)
            if self.closed is not None:
                self.checkout.dismiss()
            gate.acquire(timeout=max(0.0, waiter.deadline - monotonic()))
            worker, _, span = self.granted(waiter, method)
            return worker, span
        except BaseException:
            self.interrupted(waiter)
            raise

    def _lent(self, worker: Worker, output: int, value: Any) -> View:
        """The call is over, its value is looked at, and its worker waits for that."""
        worker.viewed = True
        if output:
            self.supervisor.drain(worker)
        self.ledger.ok += 1
        worker.call_id = 0

        def release() -> None:
            worker.viewed = False
            worker.connection.settle()
            self.give_back(worker)

        return View(value, release)

    def give_back(self, worker: Worker) -> None:
        """The worker is idle: its call, which was counted, is over, or did not begin."""
        if worker.calls >= worker.milestone:
            self.pass_milestone(worker)
        worker.call_id = 0
        self.checkout.idle.append(worker)
        self._lend_on(worker)

    def _lend_on(self, worker: Worker) -> None:
        """`worker` has just become idle."""
        if worker.doomed is not None and self.checkout.vacate(worker):
            self._close_ended(worker)
        if self.checkout.waiters:
            self.checkout.match()

    def _close_ended(self, worker: Worker) -> None:
        """Of a worker that is ending, or has ended, after its call."""
        with worker.holding:
            worker.returned = True
            if worker.finished.is_set():
                worker.channel.close()

    def pass_milestone(self, worker: Worker) -> None:
        """What is done at the end of a worker's first call, of its last one, and of one in many."""
        if worker is self.supervisor.tried:
            self.supervisor.proven()
        if self._max_requests and worker.calls >= self._max_requests:
            self.supervisor.retire(worker)
            return
        worker.milestone = min(worker.calls + polling.CALLS, self._max_requests or math.inf)
        worker.channel.may_look_out(alone=threading.active_count() <= 1 + len(_live))  # none but the main one and those that supervise

    def part(self, worker: Worker, event: Part) -> Any:
        """The value of one part of a stream. Raises CallError, RemoteProtocolError."""
        try:
            return worker.connection.value(event.body)
        except LocalProtocolError as error:  # as above
            raise failures.unreadable(self.options.name, worker, error) from error

    def parts_within(self, timeout: float | str | None) -> float:
        """Seconds that each part of a stream may take. Raises InvalidArgument; the call is rejected."""
        try:
            return parse_part_timeout(timeout)
        except CallError as error:
            self.ledger.reject(error)
            raise

    @contextlib.contextmanager
    def awaiting_part(self, worker: Worker, seconds: float, end: float) -> Iterator[None]:
        """The next part may take so many `seconds`, and the call as a whole until `end`. What its consumer takes does not count."""
        deadline = monotonic() + seconds
        if deadline < end:
            worker.part_seconds = seconds
            worker.deadline = deadline
            self.watch(deadline)
        try:
            yield
        except (OSError, RemoteProtocolError):
            raise  # it is lost, and this says why
        except BaseException:
            worker.part_seconds = 0.0
            raise
        if worker.doomed is None:  # else this is what it is ended for
            worker.part_seconds = 0.0
            worker.deadline = end

    @contextlib.contextmanager
    def losing(self, worker: Worker) -> Iterator[None]:
        """What the channel raises in here is the loss of `worker`. A TimeoutError is no channel's: a signal handler raised it."""
        try:
            yield
        except TimeoutError:
            raise
        except (OSError, RemoteProtocolError) as error:
            raise self.lost(worker, error) from error

    def left(self, worker: Worker, id: int) -> None:
        """The caller goes for a reason of its own: call `id` is cancelled, unless it is over."""
        if worker.call_id != id:
            if self.checkout.waiters:
                self.checkout.match()  # an interrupt came between the end of the call and this
            return
        self.ledger.cancelled += 1
        with worker.holding:
            worker.abandoned = worker.call_id
            ended = worker.finished.is_set()
            if ended:
                worker.channel.close()  # it was left open for this caller
        if not ended:
            self.supervisor.abandon(worker)

    # What went wrong.

    def lost(self, worker: Worker, cause: BaseException | None = None) -> CallError:
        """The error for a worker whose channel ended or broke the protocol, by the kernel's evidence."""
        worker.call_id = 0  # counted here, and by nobody else
        if isinstance(cause, RemoteProtocolError) and not worker.finished.is_set():
            log.error("protocol_violation pool=%s worker=%s cause=%s", self.options.name, worker.name, printable(str(cause)))
            self.supervisor.condemn(worker, "protocol")
        try:
            death = self.supervisor.autopsy(worker)
        except BaseException:  # Ctrl-C: the kernel's word is not waited for
            self.ledger.cancelled += 1
            raise
        with worker.holding:
            worker.channel.close()
        allowed = self._allowed(worker.method, worker.allowed)
        if worker.part_seconds:
            allowed = f"{worker.part_seconds:g} s for its next part, the stream's part_timeout"
        error = failures.lost(self.supervisor.policy, self.options.name, worker, death, allowed)
        self.ledger.count(error.code)
        return error

    def _allowed(self, method: str, seconds: float) -> str:
        """How long a call could take, and which timeout says so."""
        most = self._spans[method].seconds if method in self._spans else self.options.timeout
        whose = "the call" if seconds < most else "the pool" if seconds == self.options.timeout else "expose"
        return f"{seconds:g} s, {whose}'s timeout"

    # The pool as a whole.

    def status(self) -> dict[str, Any]:
        """Workers, states, layers in force, ledger."""
        error = self._closed_error()
        why = {"message": str(error), "reason": getattr(error, "reason", None), "retry_after": getattr(error, "retry_after", None)}
        return {"name": self.options.name, "isolation": self.options.isolation, "ledger": self.ledger.read(),
                "rejected": self.ledger.rejected, "queued": self.checkout.queued,
                "unavailable": why if error else None, **self.supervisor.status()}

    def dropped(self, face: object) -> None:
        """Nobody holds the pool's face any more: one that was not closed is, without waiting."""
        if self.closed is None and self.owner == os.getpid():
            warnings.warn(f"unclosed pool {self.options.name!r}; close it, or use `with`", ResourceWarning, source=face, stacklevel=3)
            self.supervisor.end()

    def executor(self, face: object) -> Executor:
        """What `face` gives as its executor, which holds it. Raises ConfigError."""
        from pyproc.pool.executor import FunctionSender, SandboxExecutor  # when it is asked for, with what it needs

        with self._making_sender:
            if self._sender is None:
                self._sender = FunctionSender(self)
        return SandboxExecutor(self._sender, face)

    def enter(self) -> None:
        """A `with` begins. Raises Unavailable for a pool that was closed."""
        if self.closing:
            raise Unavailable("the pool is closed; make another one", reason=SHUTDOWN)

    def close(self, grace: float | str) -> None:
        """End every worker. In a forked child: nothing, as it is the parent's pool. Raises ConfigError, and goes on serving then."""
        seconds = parse_grace(grace)
        if self.owner == os.getpid():
            self.closing = True
            if self.closed is None:
                self.failed(Unavailable("the pool is closing", reason=SHUTDOWN))  # no further call begins within the grace
            self.supervisor.close(seconds)
            if self._sender is not None:
                self._sender.close()

    def forget(self) -> None:
        """After a fork, in the child: nothing of the pool stays open."""
        self.closed = PyprocError("used after a fork")
        self.checkout.forget()
        self.supervisor.forget()
        for ear in self.ears.values():
            ear.forget()


def _forget_all() -> None:
    for core in list(_live):
        if core.owner != os.getpid():
            core.forget()


os.register_at_fork(after_in_child=_forget_all)
