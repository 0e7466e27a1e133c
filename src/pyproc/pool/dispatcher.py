"""Plain calls on an event loop: sent and answered in the loop's own callbacks, so that no task is switched to between an answer and
the next request.

    AsyncPool.call, with `prefetch` above 1
                   ──an idle worker──▶ its Lane: the frame is written, a future is awaited
                   ──none──▶ the pool's queue (Checkout), in line ──▶ sent ahead too, on the lane with the fewest
    a worker's answers ──▶ one read ──▶ futures ──▶ the next in line are written to that worker

A call that is sent ahead stands in the queue still, until it is the first one of its lane: the queue is what is known not to have
begun. So its bound, its deadlines and the pool's end apply to it as to any other, and a worker that becomes idle is given to
it. It is taken back from the busy worker then, as it is when its time is over or its task is cancelled; where it cannot be taken back
it has begun. Whoever else is first in the queue, a stream or another loop, gets the next worker whose lane is empty.

An empty lane is given back one turn of the loop later: the tasks that its answers woke call again before that, and
nothing is taken back for a worker that is idle for a moment. A lane is kept with its worker, and is `held` while the worker is
lent to this loop.

One dispatcher serves one loop, in its thread; but for `Call.wake` nothing here is called from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterable, MutableMapping
from concurrent.futures import Executor
from functools import partial
from time import monotonic
from typing import Any

from pyproc.errors import Cancelled, ResourceExhausted
from pyproc.link.channel import WHOLE_BYTES
from pyproc.pool.core import Core
from pyproc.pool.ear import Ear
from pyproc.pool.lane import roomiest
from pyproc.pool.loop_call import Call, WorkerLane
from pyproc.supervisor.state import Worker, call_ids
from pyproc_wire.connection import BriefSuccess, ConnectionClosed, Failed, Part
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError


class Dispatcher:
    """Of one pool and one loop. `ears`: of the pool's workers, shared with whoever else listens to them; `autopsies`: has the threads
    in which the kernel's word on a death is waited for."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, ears: MutableMapping[Worker, Ear], autopsies: Executor) -> None:
        self.loop = loop
        self._core = core
        self._ears = ears
        self._autopsies = autopsies
        self._prefetch = core.options.prefetch
        self._looking: set[str] = set()
        self.ids = call_ids()
        self._known: dict[Worker, WorkerLane] = {}
        self._lanes: dict[Worker, WorkerLane] = {}  # those that are held
        self._line: deque[Call] = deque()  # calls of the queue that were not sent, oldest first; and some that left it

    def start(self, method: str, body: Any, timeout: float | str | None) -> Call:
        """The call, which is perhaps done. Raises CallError for one that is not accepted."""
        core = self._core
        worker = span = lane = None
        try:
            worker, span = core.lend(method, timeout, body)
            call = Call(self, method, span)
            if worker is None:
                self._join(call, body)
                return call
            lane = self._refusing(worker)
            call.frame = core.begin(worker, method, body, span, False)
        except BaseException as error:
            if lane is not None:
                self._let_go(lane)
            core.not_begun(worker, span, error)
            raise
        try:
            call.id, call.deadline, call.whole = worker.call_id, worker.deadline, len(call.frame) <= WHOLE_BYTES
            self._send(lane, call)
            self._hear(lane)  # of a short function the answer is often there: to be woken costs more than to look
        except BaseException:  # Ctrl-C
            if not call.ended and lane.held:
                self._give_up(lane, call)
            raise
        return call

    def _refusing(self, worker: Worker) -> WorkerLane:
        """As `_hold`, for a call that is not accepted yet."""
        try:
            return self._hold(worker)
        except ResourceExhausted as error:
            self._core.ledger.reject(error)
            raise

    def leave(self, call: Call) -> None:
        """Its task goes for a reason of its own: the call is cancelled, unless it is over."""
        if os.getpid() != self._core.owner:
            return  # a forked child collects it: the loop and the worker are the parent's
        call.gone = True
        if call.lane is not None and call.lane.calls[0] is not call:
            self._take_back(call.lane)
        if call.lane is None:
            self.forsake(call)
        else:
            self._cancel_first(call.lane)
        if not self.loop.is_closed():
            self._pump()

    def forsake(self, call: Call) -> None:
        """A call that has not begun is cancelled. From any thread."""
        if not call.ended:
            call.ended = True
            self._core.forsake(call)

    def close(self) -> None:
        """The pool has ended: what is still outstanding is lost."""
        for lane in list(self._lanes.values()):
            self._lose(lane)
        for lane in self._known.values():
            lane.ear.close()
            if self._ears.get(lane.worker) is lane.ear:
                del self._ears[lane.worker]
        self._known.clear()

    def abandon(self) -> None:
        """The loop was closed: what it left running is cancelled, and nobody waits for it."""
        if os.getpid() == self._core.owner:
            for lane in list(self._lanes.values()):
                self._give_up(lane)
        self.close()

    def _give_up(self, lane: WorkerLane, begun: Call | None = None) -> None:
        """All calls of a lane are cancelled, `begun` among them if it was not sent: its worker goes back where it has none, and is the
        supervisor's else."""
        core, worker = self._core, lane.worker
        self._stop_writing(lane)
        lane.ear.ignore()
        self._let_go(lane)
        first, others = lane.lost()
        for call in others:
            call.lane = None
            if call.ended:
                continue
            if call.left:  # it was taken for begun
                core.ledger.count("cancelled")
            else:
                self.forsake(call)
            call.finish(None, Cancelled(f"call of {call.method!r} was cancelled"))
        first = first or begun
        if first is None:
            core.give_back(worker)
            return
        first.lane = None
        if not first.ended:
            first.finish(None, Cancelled(f"call of {first.method!r} was cancelled"))
            core.left(worker, first.id)
        if others:
            core.supervisor.condemn(worker, "cancelled")  # what was sent behind it must not run

    def ear(self, worker: Worker) -> Ear:
        """The worker's ear in this loop."""
        ear = self._ears.get(worker)
        if ear is None or ear.loop is not self.loop:
            if ear is not None:
                ear.close()
            ear = self._ears[worker] = Ear(self.loop, worker)
        return ear

    # What waits.

    def _join(self, call: Call, body: Any) -> None:
        core = self._core
        try:
            core.queue(call, call.method, body, stream=False)
            core.watch(call.deadline)
        except BaseException:
            core.interrupted(call)
            raise
        self._line.append(call)
        self._pump()

    def woken(self, call: Call) -> None:
        """A worker was given to the call, its time is over, or the pool ends."""
        if call.left or call.ended:
            return
        if call.lane is not None:
            self._take_back(call.lane)
        if call.ended:
            pass  # its time was over as well: the worker that it was given is given back
        elif call.worker is not None:
            self._given(call, call.worker)
        elif call.lane is None:
            self._end_wait(call)
        self._pump()

    def _given(self, call: Call, worker: Worker) -> None:
        try:
            lane = self._hold(worker)
        except ResourceExhausted as error:
            if call.lane is not None:
                self._has_begun(call.lane, call)  # which gives the worker back
            elif self._core.checkout.leave(call):
                self._core.withdrawn(call, error.code)
                call.fail(error)
            return
        call.worker = None
        if call.lane is None:
            self._begin_queued(lane, call)
        else:
            self._has_begun(call.lane, call)  # the queue knows it no more
        self._go_on(lane)

    def _end_wait(self, call: Call) -> None:
        """No worker came, or too late."""
        if self._core.checkout.leave(call):
            call.fail(self._core.not_served(call, call.method))

    def _pump(self) -> None:
        """Send what waits to wherever it may go."""
        while (call := self._next()) is not None:
            lane = roomiest(self._lanes.values())
            if lane is None or not self._send_on(lane, call):
                return

    def _next(self) -> Call | None:
        """The first in line, unless somebody else stands before it in the queue."""
        line = self._line
        while line and (line[0].left or line[0].ended):
            line.popleft()
        if not line:
            return None
        try:
            oldest = self._core.checkout.waiters[0]
        except IndexError:
            return None
        return line[0] if type(oldest) is Call and oldest.dispatcher is self else None

    def _send_on(self, lane: WorkerLane, call: Call) -> bool:
        """Send `call`, the first in line; whether it left the line."""
        self._line.popleft()
        if not lane.calls:
            self._begin_queued(lane, call)
        elif not self._send_ahead(lane, call):
            self._line.appendleft(call)
            return False
        return True

    # Requests.

    def _hold(self, worker: Worker) -> WorkerLane:
        """The lane of a worker that is lent to us. Raises ResourceExhausted when no descriptor is left."""
        lane = self._known.get(worker)
        try:
            if lane is None:
                for other in [other for other in self._known if other.death is not None]:
                    del self._known[other]
                lane = WorkerLane(worker, self.ear(worker), self._prefetch, self._core.calls_left(worker), self._looking)
                self._known[worker] = lane
            elif lane.ear.closed:
                lane.ear = self.ear(worker)
        except OSError as error:
            raise ResourceExhausted(f"an answer cannot be waited for: {error}; close files, or raise `ulimit -n`",
                                    bound="descriptors") from error
        lane.quota = self._core.calls_left(worker)  # others may have called
        lane.held = True
        self._lanes[worker] = lane
        return lane

    def _let_go(self, lane: WorkerLane) -> None:
        """Its worker is not ours any more."""
        lane.held = False
        del self._lanes[lane.worker]

    def _begin_queued(self, lane: WorkerLane, call: Call) -> None:
        """Begin a call of the queue on an empty lane, unless its wait has ended."""
        core, worker = self._core, lane.worker
        if not core.checkout.leave(call):
            return
        if call.deadline <= monotonic():
            call.fail(core.not_served(call, call.method))
            return
        call.over = True
        if call.worker is not None:
            core.give_back(call.worker)
        worker.calls += 1
        core.took_up(worker, call.id, call.method, call.deadline, call.span.whole)
        try:
            worker.connection.expect(call.id)
        except LocalProtocolError:  # its connection is over, and the call is lost with it
            lane.sent(call)
            self._lose(lane)
        else:
            self._send(lane, call)

    def _send(self, lane: WorkerLane, call: Call) -> None:
        """Send a call that begins, to a worker that has no other."""
        channel = lane.worker.channel
        call.left = True
        call.lane = lane
        lane.sent(call)
        try:
            if lane.ear.deaf:
                lane.ear.attend(partial(self._hear, lane))
            if channel.waits:
                channel.set_waiting(waits=False)
            if not call.whole:
                self._write(lane, memoryview(call.frame))
                return
            try:
                os.write(channel.requests, call.frame)
            except BlockingIOError:
                self._write(lane, memoryview(call.frame))
        except OSError as error:
            self._lose(lane, error)

    def _write(self, lane: WorkerLane, frame: memoryview) -> None:
        """Write as much as there is room for, and the rest when there is more. Raises OSError."""
        channel = lane.worker.channel
        try:
            lane.rest = frame[os.write(channel.requests, frame) :]
        except BlockingIOError:
            lane.rest = frame
        if lane.rest and not channel.sending:
            self.loop.add_writer(channel.requests, self._write_on, lane)
        elif channel.sending and not lane.rest:
            self.loop.remove_writer(channel.requests)
        channel.sending = bool(lane.rest)

    def _write_on(self, lane: WorkerLane) -> None:
        try:
            self._write(lane, lane.rest)
        except OSError as error:
            self._lose(lane, error)

    def _send_ahead(self, lane: WorkerLane, call: Call) -> bool:
        """Send a call to a worker that has others, where it is one packet and finds room; whether it did. It stays in the queue."""
        connection = lane.worker.connection
        if lane.rest or not call.whole:
            return False
        try:
            connection.expect(call.id)
        except LocalProtocolError:  # its connection is over, which is heard next
            return False
        try:
            os.write(lane.worker.channel.requests, call.frame)
        except OSError:
            connection.withdraw(call.id)
            return False
        call.lane = lane
        lane.sent(call)
        return True

    def _take_back(self, lane: WorkerLane) -> None:
        """What the worker has not read, but for the call that is its first, waits in line again, before all others."""
        if len(lane.calls) > 1:
            channel, first = lane.worker.channel, lane.calls[0].frame
            frames = channel.taken_back()
            if first in frames:
                os.write(channel.requests, first)
            self._return(lane.taken_back(frames), lane)

    def _return(self, calls: Iterable[Call], lane: WorkerLane) -> None:
        for call in reversed(list(calls)):
            lane.worker.connection.withdraw(call.id)
            call.lane = None
            if call.ended:
                continue  # its loop was closed, and it was counted then
            if call.left:  # it was taken for begun
                lane.worker.calls -= 1
                call.left = False
                self._core.wait_again(call)
            elif call.dismissed:  # nobody in the queue would wake it any more
                self._core.wait_again(call)
            if call.gone:
                self.forsake(call)
            elif not call.watched:  # its time was over while the worker had it
                self._end_wait(call)
            else:
                self._line.appendleft(call)

    # Answers.

    def _hear(self, lane: WorkerLane) -> None:
        """Take in what a worker has answered, and send it what waits."""
        worker = lane.worker
        if not lane.held:
            lane.ear.ignore()  # it is somebody else's answer, or an end that is nobody's
            return
        connection, first = worker.connection, lane.calls[0] if lane.calls else None
        try:
            data = worker.channel.receive(worker.finished.is_set)
            brief = connection.brief(data)
            if brief is not None:
                self._settle(lane, brief)
            else:
                for event in connection.briefs(data) or connection.receive(data):
                    self._settle(lane, event)
        except BlockingIOError:
            return
        except RemoteProtocolError as error:
            with contextlib.suppress(RemoteProtocolError):
                for event in error.before[: max(0, len(lane.calls) - 1)]:
                    self._settle(lane, event)
            self._lose(lane, error)
        except OSError as error:
            self._lose(lane, error)
        except BaseException:  # Ctrl-C
            if lane.held:
                self._give_up(lane)
            raise
        else:
            if lane.calls and lane.calls[0] is not first:
                self._took_up(lane)
            if lane.calls and lane.calls[0].gone:
                self._cancel_first(lane)
            self._go_on(lane)

    def _settle(self, lane: WorkerLane, event: Any) -> None:
        """One event of a worker. Raises RemoteProtocolError for one that may not come, BrokenPipeError for the end."""
        core, worker, kind = self._core, lane.worker, type(event)
        if kind is not BriefSuccess:
            if kind is ConnectionClosed or kind is Part:
                raise BrokenPipeError("the worker hung up")
            if len(lane.calls) == 1 and worker.connection.mid_frame:
                raise RemoteProtocolError("bytes follow the answer")
        call, settled = lane.answered(event.id, event.code if kind is Failed else "")
        if not settled:
            self._return([call], lane)
            return
        call.lane = None
        if not call.left:
            self._has_begun(lane, call)
        if kind is Failed:
            worker.method = call.method
            call.fail(core.failure(worker, event))
        else:
            try:
                value = event.body if kind is BriefSuccess else worker.connection.value(event.body)
            except LocalProtocolError as error:  # an array, where there is no numpy
                worker.method = call.method
                call.fail(core.failure(worker, error))
            except BaseException:  # it is lost, or Ctrl-C
                call.lane = lane
                lane.calls.appendleft(call)
                raise
            else:
                core.ledger.ok += 1
                call.finish(value)
        if event.output:
            core.supervisor.drain(worker)

    def _has_begun(self, lane: WorkerLane, call: Call) -> None:
        """The call, if it was sent ahead, leaves the queue."""
        core = self._core
        if not call.left and core.checkout.leave(call):
            call.over = True
            lane.worker.calls += 1
            if call.worker is not None:
                core.give_back(call.worker)

    def _took_up(self, lane: WorkerLane) -> None:
        """The lane has another first call, which runs, or is about to."""
        call = lane.calls[0]
        self._has_begun(lane, call)
        self._core.took_up(lane.worker, call.id, call.method, call.deadline, call.span.whole)

    def _go_on(self, lane: WorkerLane) -> None:
        """Send what waits to a worker that has answered, or was given to us; it is given back where there is nothing."""
        core, worker = self._core, lane.worker
        if not lane.held:
            return
        if worker is core.supervisor.tried:
            core.supervisor.proven()
        if not lane.calls and worker.calls >= worker.milestone:
            core.pass_milestone(worker)
        while lane.room and (call := self._next()) is not None and self._send_on(lane, call):
            pass
        if lane.calls:
            return
        worker.call_id = 0
        if worker.doomed is not None:
            self._let_go(lane)
            core.give_back(worker)
        else:
            self.loop.call_soon(self._release, lane)

    def _release(self, lane: WorkerLane) -> None:
        """Give back the worker of an empty lane."""
        if lane.held and not lane.calls:
            self._let_go(lane)
            self._core.give_back(lane.worker)

    # Ends.

    def _stop_writing(self, lane: WorkerLane) -> None:
        if lane.rest:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self.loop.remove_writer(lane.worker.channel.requests)
            lane.rest = memoryview(b"")

    def _cancel_first(self, lane: WorkerLane) -> None:
        """If the first call's caller is gone, its worker is the supervisor's once it has no other call, to be given back or ended. Till
        then the worker is heard: it hands back or answers what could not be taken back."""
        self._take_back(lane)
        if len(lane.calls) == 1 and lane.calls[0].gone:
            self._stop_writing(lane)
            self._let_go(lane)
            lane.ear.ignore()
            call = lane.calls.popleft()
            call.lane, call.ended = None, True
            self._core.left(lane.worker, call.id)

    def _lose(self, lane: WorkerLane, cause: Exception | None = None) -> None:
        """The worker ended or broke the protocol: the first call is lost, the others wait again."""
        self._stop_writing(lane)
        if lane.held:
            self._let_go(lane)
        self._known.pop(lane.worker, None)
        first, others = lane.lost()
        self._return(others, lane)
        worker = lane.worker
        ear = self._ears.pop(worker, None)
        if ear is not None:
            ear.close()
        if first is None:
            if isinstance(cause, RemoteProtocolError):
                self._core.supervisor.condemn(worker, "protocol")
            self._core.give_back(worker)
        else:
            self._has_begun(lane, first)
            first.lane, first.ended = None, True
            worker.call_id, worker.method, worker.allowed = 0, first.method, first.span.whole
            if self.loop.is_closed():
                self._core.lost(worker, cause)
                return
            try:
                judged = self.loop.run_in_executor(self._autopsies, self._core.lost, worker, cause)
            except RuntimeError:  # the pool is closed
                first.fail(self._core.lost(worker, cause))
            else:
                judged.add_done_callback(lambda judged: first.fail(judged.exception() or judged.result()))
        self._pump()
