"""Serves calls on one inherited channel, one at a time: one receive and one send for each.

    supervisor                             worker
       | <------------------------ ready -- |
       | -- request ----------------------> | function runs
       | -- cancellation, credit ---------> | taken in when the function asks, when the event loop runs, when a watched
       |                                    | function runs, and between the parts of a stream
       | <------- part, part, ... answer -- |
       | -- (end of file) ----------------> | serve returns

Answers are not batched: each is flushed before the next function begins, so that a death loses one call. Requests that arrive
together wait in `_early`. One that is met while a function runs is handed back, answered as cancelled: nobody knows how long the
function takes, and another worker may be idle.

`_lock` guards the channel and the connection. It is held whenever no function runs, so that a thread which a function
left behind cannot take in what is not its own. Nothing is done per call that can be done per worker: signatures are
resolved when functions are exposed, and asyncio is imported when an asynchronous function is.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from os import read, write
from time import monotonic
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from pyproc_wire import polling
from pyproc_wire.arena import Receiver, Sender
from pyproc_wire.connection import (
    BadRequest,
    BriefRequest,
    Called,
    CallerConnection,
    CancelRequested,
    ConnectionClosed,
    CreditGranted,
    WorkerConnection,
    WorkerEvent,
)
from pyproc_wire.errors import RemoteProtocolError, printable
from pyproc_wire.limits import READY_BYTES, RECV_BYTES
from pyproc_wire.messages import LinkRequest
from pyproc_worker import arena, batch, stdio, streams
from pyproc_worker import call as calls
from pyproc_worker.call import Call
from pyproc_worker.channel import Channel
from pyproc_worker.failure import Failure, classify, refused_body, unsendable
from pyproc_worker.registry import HEALTH, Function, Registry
from pyproc_worker.streams import UNFINISHED

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


def prepare(
    channel: Channel, registry: Registry, *, request_limit: int, response_limit: int,
    settle: Callable[[], None] | None = None,
) -> Callable[[], None]:
    """What needs no peer is done now; the returned function does the rest: it says ready, answers calls, and returns when the
    supervisor hangs up. The registry gets frozen. The function raises RemoteProtocolError if the supervisor breaks the rules of the
    wire, OSError if the channel fails.

    A zygote prepares once, and each process forked from it goes on: what is made after a fork costs the copy of its page.
    `settle` is called between ready and the first request: what a worker must do for itself, but the supervisor, which
    looks at it meanwhile, need not wait for.
    """
    tally = stdio.install()
    registry.freeze()
    arena.present = sender = Sender(partial(arena.map_answers, response_limit))
    receiver = Receiver(partial(arena.map_requests, request_limit), request_limit, views=True)
    connection = WorkerConnection(request_limit=request_limit, response_limit=max(response_limit, READY_BYTES), sender=sender,
                                  receiver=receiver)
    ready = connection.ready(registry.describe())
    connection.response_limit = response_limit
    server = Server(channel, registry, connection, tally)

    def go_on() -> None:
        try:
            channel.greet(ready)
            if settle is not None:
                settle()
            tally.take()  # what the import wrote belongs to no call
            registry.born = monotonic()
            registry.handled = 0
            server.run()
        except BrokenPipeError:
            pass  # the supervisor is gone, as at end-of-file
        finally:
            server.close()

    return go_on


def rehearsal(channel: Channel, registry: Registry) -> Callable[[], None]:
    """Answers `health`, of which no script has its own, to nobody, on a connection of its own. The first call of a process that was
    forked copies each page that it writes to, which takes longer than the call: who waits for one has done that before."""
    connection = WorkerConnection()
    server = Server(channel, registry, connection, stdio.install())
    caller = CallerConnection()
    caller.receive(connection.ready(registry.describe()))
    frame = caller.request(1, HEALTH, None, 1000, False)

    def rehearse() -> None:
        request = connection.brief(frame)
        if request is not None:
            with server._lock:
                server._answer(request)

    return rehearse


class Server:
    """One channel: the loop over its calls, and the Port of the call that runs."""

    def __init__(self, channel: Channel, registry: Registry, connection: WorkerConnection, tally: stdio.Tally) -> None:
        self._channel = channel
        self._registry = registry
        self.connection = connection
        self._tally = tally
        self._lock = threading.Lock()
        self._early: deque[LinkRequest | BadRequest] = deque()
        self._withdrawn: set[int] = set()  # ids in `_early` whose callers gave up
        self._value, self._success = connection.value, connection.success
        self._ended = False
        self._breach: RemoteProtocolError | None = None
        self._coroutines: streams.Coroutines | None = None
        self._loop: AbstractEventLoop | None = None

    def run(self) -> None:
        """Answer calls until the end of the channel."""
        brief, receive = self.connection.brief, self.connection.receive
        send, requests, answers = self._channel.send, self._channel.requests, self._channel.answers
        early, answer = self._early, self._answer
        channel, calls_without = self._channel, range(polling.CALLS)
        with self._lock:
            while not self._ended:
                channel.lively = True
                for _ in calls_without:
                    if channel.lively:
                        channel.look_out()
                    data = read(requests, RECV_BYTES)
                    request = brief(data)
                    if request is not None:
                        frame = answer(request)
                        sent = write(answers, frame)
                        if sent != len(frame):
                            send(frame[sent:])
                    else:
                        self._take_in(receive(data))
                    if early or self._ended:
                        break
                while early and not self._ended:
                    event = early.popleft()
                    if isinstance(event, BadRequest):
                        frame = self._refuse(event)
                    else:
                        frame = self._batch(event) if event.batch else answer(event)
                    self.connection.settle()  # only here: a brief request refers to nothing
                    send(frame)
            if self._breach is not None:
                raise self._breach

    def _receive(self, data: bytes) -> None:
        """Take in what arrives while a function runs, which must not see the supervisor's breaches. The lock is held."""
        try:
            self._take_in(self.connection.receive(data))
        except RemoteProtocolError as error:
            self._breach = error
            self._take_in(error.before)
            self._end()

    def _answer(self, request: LinkRequest) -> bytes:
        function = self._registry.lookup(request.method)
        if function is None:
            return self._unknown(request)
        if not request.deadline_ms or self._withdrawn:
            refusal = self._not_begun(request)
            if refusal is not None:
                return refusal
        self._registry.handled += 1
        calls.present = call = Call(request, function.timeout, self._look, monotonic())
        failure: Failure | None = None
        lock = self._lock
        try:
            body = request.body
            value = body if type(request) is BriefRequest else self._value(body) if body else None
            if function.check is not None:
                value = function.check(value)
        except BaseException as error:  # noqa: BLE001 - the check of a type may be the script's own code
            calls.present = None
            return self._fail(request.id, refused_body(error, function.public_errors))
        lock.release()
        try:
            result = self.watched(function, value, call) if function.wants_event else function.run(value)
            if type(result) in UNFINISHED:
                result = self.finish(call, result)
        except BaseException as error:  # noqa: BLE001 - whatever a function raises is the answer to its call
            failure = classify(error, call=call, public_errors=function.public_errors)
        finally:
            lock.acquire()
            calls.present = None
        if self._ended:
            return b""
        if failure is not None:
            return self._fail(request.id, failure)
        try:
            return self._success(request.id, result, self._tally.take() if self._tally.touched else 0)
        except BaseException as error:  # noqa: BLE001 - a property of a result may be the script's own code
            return self._fail(request.id, unsendable(error))

    def _batch(self, request: LinkRequest) -> bytes:
        """As `_answer`, of a batch. The present call is set from its first item on to its end: who takes in what arrives finds it."""
        function = self._registry.lookup(request.method)
        if function is None:
            return self._unknown(request)
        refusal = self._not_begun(request)
        if refusal is not None:
            return refusal
        try:
            bodies = self._value(request.body)
            if type(bodies) is not list or not bodies:
                raise RemoteProtocolError("the body of a batch is no list of items")
        except BaseException as error:  # noqa: BLE001 - as above
            return self._fail(request.id, refused_body(error))
        self._lock.release()
        try:
            ended = batch.Batch(self, self._registry, function, request, self._tally).run(bodies)
        finally:
            self._lock.acquire()
            calls.present = None
        if self._ended:
            return b""
        if ended is not None:
            return self._fail(request.id, ended)
        return self._success(request.id, None, self._tally.take() if self._tally.touched else 0)

    def _fail(self, id: int, failure: Failure) -> bytes:
        output = self._tally.take() if self._tally.touched else 0
        return self.connection.failure(
            id,
            failure.code,
            failure.error,
            path=failure.path,
            bound=failure.bound,
            public=failure.public,
            report=failure.report,
            output=output,
        )

    def _unknown(self, request: LinkRequest) -> bytes:
        self._withdrawn.discard(request.id)
        text = f"no function {printable(request.method)!r} is exposed"
        return self._fail(request.id, Failure("not_found", text, public=True))

    def _not_begun(self, request: LinkRequest) -> bytes | None:
        """The answer to a call that is over before it begins, if it is."""
        if request.id in self._withdrawn:
            self._withdrawn.remove(request.id)
            return self._fail(request.id, Failure("cancelled", "call was cancelled", public=True))
        if request.deadline_ms == 0:
            return self._fail(request.id, Failure("deadline_exceeded", "deadline had passed before the call began", public=True))
        return None

    def _refuse(self, bad: BadRequest) -> bytes:
        if bad.id is not None:
            self._withdrawn.discard(bad.id)
        return self.connection.failure(bad.id, bad.code, bad.error, public=True)

    # What arrives while a function runs.

    def _take_in(self, events: list[WorkerEvent]) -> None:
        """Sort events: requests wait or are handed back, the rest concerns the present call or one that waits. The lock is held."""
        call = calls.present
        for event in events:
            if type(event) is Called and call is not None:
                self._channel.send(self.connection.failure(event.id, "cancelled", "another call runs", public=True))
            elif type(event) is Called or type(event) is BadRequest:
                self._early.append(event)
            elif type(event) is CancelRequested:
                if call is not None and call.number == event.id:
                    call.give_up()
                else:
                    self._withdrawn.add(event.id)
            elif type(event) is CreditGranted:
                if call is not None and call.number == event.id and call.notify is not None:
                    call.notify()
            elif type(event) is ConnectionClosed:
                self._end()

    def _end(self) -> None:
        self._ended = True
        if self._loop is not None:
            self._loop.remove_reader(self._channel.requests)
        if calls.present is not None:
            calls.present.give_up()

    def _look(self) -> None:
        """Take in what has arrived, without waiting. From any thread."""
        if self._ended or not self._lock.acquire(blocking=False):
            return  # the lock is held between calls: this thread's call is over
        try:
            if calls.present is not None and not self._ended and self._channel.waiting:
                self._receive(self._channel.receive())
        except OSError:
            self._end()  # a broken channel is an ended one
        finally:
            self._lock.release()

    def watched(self, function: Function, value: Any, call: Call) -> Any:
        """Run a function that takes `cancel_event` while a thread watches the channel for it."""
        call.event = threading.Event()
        stop = os.eventfd(0, os.EFD_CLOEXEC)
        watcher = threading.Thread(target=self._watch, args=(call, stop), daemon=True)
        try:
            watcher.start()
            result = function.run(value, cancel_event=call.event)
            return self.finish(call, result) if type(result) in UNFINISHED else result
        finally:
            os.eventfd_write(stop, 1)
            if watcher.ident is not None:
                watcher.join()
            os.close(stop)

    def _watch(self, call: Call, stop: int) -> None:
        poll = select.poll()
        poll.register(self._channel.requests, select.POLLIN)
        poll.register(stop, select.POLLIN)
        deadline = call.deadline
        while not call.cancelled:
            left = None if deadline is None else max(0, deadline - monotonic()) * 1000
            ready = poll.poll(left)
            if any(descriptor == stop for descriptor, _ in ready):
                return
            if not ready:
                call.tell()  # the deadline has passed
                return
            self._look()

    # Port

    def window(self, call: Call) -> int:
        return self.connection.window(call.number)

    def send_part(self, call: Call, value: Any) -> None:
        with self._lock:
            self._channel.send(self.connection.part(call.number, value))

    def send_items(self, call: Call, results: list[Any], failure: Failure | None) -> BaseException | None:
        """Send results of a batch; why they cannot be sent, where nothing was. Raises OSError."""
        with self._lock:
            if self._ended:
                return None
            try:
                frame = self.connection.items(call.number, results, failure)
            except BaseException as error:  # noqa: BLE001 - a property of a result may be the script's own code
                return error
            self._channel.send(frame)
        return None

    @property
    def look(self) -> Callable[[], None]:
        """What a call looks with."""
        return self._look

    def wait(self, call: Call) -> None:
        with self._lock:
            # Another thread may have taken in what is waited for.
            if not (self.connection.window(call.number) or call.cancelled):
                self._receive(self._channel.receive())

    def attach(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._channel.requests, self._look)

    def finish(self, call: Call, result: Any) -> Any:
        if type(result) is GeneratorType:
            return streams.drain(self, call, result, stream=call.stream)
        if self._coroutines is None:
            self._coroutines = streams.Coroutines(self)
        return self._coroutines.finish(self, call, result, stream=call.stream)

    def close(self) -> None:
        """Release what the event loop holds."""
        if self._coroutines is not None:
            self._coroutines.close()
