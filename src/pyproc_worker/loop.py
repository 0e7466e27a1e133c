"""Serves calls on one inherited channel, one at a time: one receive and one send for each.

    supervisor --- request -----------------> loop ---> function
               --- cancellation, credit ----> (looked for while it runs)
               <-- parts, then one answer --- loop

Nothing is done per call that can be done per worker: signatures are resolved at exposure, asyncio is imported at exposure
and its loop made at the first async call. The loop ends at end-of-file.

Whoever reads the channel while a function runs (the function itself, the watcher, the event loop) holds `_lock` over
both the reading and the taking in, so that two readers cannot swap the order of what arrived. Only `run` reads without
it, when no call is under way; a thread that outlived its call is kept from reading then.

What goes wrong is told apart by where it went wrong, not by its type: a function may raise an exception of ours, and
that must not pass for a bad body or an unsendable result.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyproc_wire.connection import BadRequest, Called, CancelRequested, ConnectionClosed, WorkerConnection
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.limits import RECV_BYTES
from pyproc_worker import call as calls
from pyproc_worker import failure, stdio
from pyproc_worker.registry import ASYNC, ASYNC_GENERATOR, PLAIN, BadBody, Function, Registry


class _Unsendable(Exception):
    """A part of a stream cannot be sent; `args[0]` is the Failure."""

READY_BYTES = 1 << 20  # what a worker may say of itself; the supervisor takes no more


class _Server:
    def __init__(self, channel: socket.socket, registry: Registry, connection: WorkerConnection) -> None:
        self._channel = channel
        self._registry = registry
        self._connection = connection
        self._events: list[Any] = []  # requests, good and bad, that wait for their turn
        self._gone: set[int] = set()  # open calls whose caller gave up
        self._call: calls.Call | None = None
        self._asyncio: Any = None
        self._task: Any = None
        self._closed = False
        self._breach: RemoteProtocolError | None = None
        self._lock = threading.RLock()

    def run(self) -> None:
        receive, send, events = self._channel.recv, self._channel.sendall, self._events
        while not self._closed:
            if not events:
                self._take(receive(RECV_BYTES))
                continue
            event = events.pop(0)
            if type(event) is Called:
                answer = self._answer(event)
                if answer:
                    send(answer)
            elif event.id is not None:
                send(self._connection.failure(event.id, event.code, event.error, public=True))
        if self._asyncio is not None:
            self._asyncio.close()
        if self._breach is not None:
            raise self._breach

    def _answer(self, request: Any) -> bytes:
        """The bytes that end the call; none if the channel ended while it ran."""
        connection, id = self._connection, request.id
        self._registry.handled += 1
        function = self._registry.lookup(request.method)
        if function is None:
            return connection.failure(id, "not_found", f"no function {request.method[:200]!r} is exposed", public=True)
        deadline = None if request.deadline_ms is None else time.monotonic() + request.deadline_ms / 1000
        present = calls.Call(id, request.method, deadline, request.tenant, request.principal, self._peek)
        value = None
        if id in self._gone:
            self._gone.discard(id)
            return connection.failure(id, "cancelled", "the caller gave up", public=True)
        self._call = present
        calls.begin(present)
        try:
            what, value = self._outcome(function, request, present)
        except MemoryError:  # raised by the making of a failure; the frames that held the memory are gone now
            what = failure.OUT_OF_MEMORY
        finally:
            calls.begin(None)
            with self._lock:
                self._call = None
                if self._gone:
                    self._gone.discard(id)
        if self._closed:
            return b""
        if what is None:
            try:
                return connection.success(id, value, stdio.taken())
            except LocalProtocolError as error:
                what = failure.unsendable(error)
            except BaseException as error:  # noqa: BLE001 - a field of a result may be a property that raises
                what = failure.classify(error)
        return self._failed(id, what)

    def _outcome(self, function: Function, request: Any, present: calls.Call) -> tuple[failure.Failure | None, Any]:
        try:
            args, kwargs = function.bind(self._connection.value(request.body))
        except (BadBody, RemoteProtocolError) as error:
            return failure.bad_body(error), None
        except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is answered or logged
            return failure.classify(error, function.public_errors, present), None
        try:
            if function.direct:
                return None, function.fn(*args, **kwargs)
            return None, self._run(function, args, kwargs, request)
        except _Unsendable as error:
            return error.args[0], None
        except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is answered or logged
            return failure.classify(error, function.public_errors, present), None

    def _failed(self, id: int, what: failure.Failure) -> bytes:
        return self._connection.failure(id, what.code, what.error, path=what.path, bound=what.bound,
                                        public=what.public, report=what.report, output=stdio.taken())

    def _run(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], request: Any) -> Any:
        """A function that is more than a plain call."""
        if function.wants_event:
            with self._watching() as kwargs["cancel_event"]:
                return self._run_kind(function, args, kwargs, request)
        return self._run_kind(function, args, kwargs, request)

    def _run_kind(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], request: Any) -> Any:
        if function.kind is PLAIN:
            return function.fn(*args, **kwargs)
        if function.kind is ASYNC:
            return self._complete(function.fn(*args, **kwargs))
        gathered: list[Any] = []
        emit = self._sender(request.id) if request.stream else self._gatherer(gathered)
        parts = function.fn(*args, **kwargs)
        if function.kind is ASYNC_GENERATOR:
            self._complete(_pump(parts, emit))
        else:
            try:
                for part in parts:
                    emit(part)
            finally:
                parts.close()
        return None if request.stream else gathered

    # Streams.

    def _sender(self, id: int) -> Callable[[Any], None]:
        """Sends one part, when the caller has granted room for it."""
        connection, present = self._connection, calls.current_call()

        def emit(part: Any) -> None:
            present.check()
            while connection.window(id) <= 0:
                self._wait(present)
                present.check()
            try:
                with self._lock:  # a credit that the watcher takes in must not be lost
                    frame = connection.part(id, part)
            except LocalProtocolError as error:
                raise _Unsendable(failure.unsendable(error)) from error
            self._channel.sendall(frame)

        return emit

    def _gatherer(self, gathered: list[Any]) -> Callable[[Any], None]:
        """Keeps the parts for a plain call, as many as one answer can hold."""
        connection, present, size = self._connection, calls.current_call(), 0

        def emit(part: Any) -> None:
            nonlocal size
            present.check()
            try:
                size += len(connection.codec.encode_value(part))
                if size > connection.response_limit:
                    raise LocalProtocolError(f"its parts are beyond {connection.response_limit} bytes; ask for a stream",
                                             code="payload_too_large")
            except LocalProtocolError as error:
                raise _Unsendable(failure.unsendable(error)) from error
            gathered.append(part)

        return emit

    def _wait(self, present: calls.Call) -> None:
        """Until something arrives or the deadline passes."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        left = None if present.deadline is None else max(0.0, present.deadline - time.monotonic()) * 1000
        poll.poll(left)

    # Async functions.

    def _complete(self, awaitable: Any) -> Any:
        """The result of a coroutine. The event loop hears of a cancellation by itself and cancels the task."""
        import asyncio  # loaded when the function was exposed

        loop = self._asyncio
        if loop is None:
            loop = self._asyncio = asyncio.new_event_loop()
            loop.add_reader(self._channel, self._heard)
        present = calls.current_call()
        self._task = loop.create_task(awaitable)
        try:
            return loop.run_until_complete(self._task)
        except asyncio.CancelledError as error:
            if present.abandoned:
                raise calls.Cancelled("the caller gave up") from error
            raise
        finally:
            self._task = None
            left = asyncio.all_tasks(loop)
            if left:  # what a function leaves running would go on in the call of someone else
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def _heard(self) -> None:
        self._look()
        if self._closed:
            self._asyncio.remove_reader(self._channel)
        if self._call is not None and self._call.abandoned and self._task is not None:
            self._task.cancel()

    # What arrives while a function runs.

    def _peek(self) -> None:
        """`check_cancelled` looks here: not any more once its call is over, as `run` waits on the channel then."""
        with self._lock:
            if self._call is not None:
                self._look()

    def _look(self) -> None:
        """Take in what has arrived, without waiting: a cancellation, a credit, the end."""
        with self._lock:
            try:
                data = self._channel.recv(RECV_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""  # a broken channel is an ended one
            self._take(data)

    def _take(self, data: bytes) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                events = self._connection.receive(data)
            except RemoteProtocolError as error:
                events, self._breach = error.before, error
            for event in events:
                kind = type(event)
                if kind is Called or kind is BadRequest:
                    self._events.append(event)
                elif kind is CancelRequested:
                    self._gone.add(event.id)  # type: ignore[arg-type, union-attr]
                    if self._call is not None and self._call.id == str(event.id):  # type: ignore[union-attr]
                        self._call.cancelled.set()
                elif kind is ConnectionClosed:
                    self._closed = True
            if self._breach is not None:
                self._closed = True
            if self._closed and self._call is not None:
                self._call.cancelled.set()

    @contextmanager
    def _watching(self) -> Iterator[threading.Event]:
        """The event of `cancel_event`, and a thread that sets it; the thread is gone when the function is over."""
        present = calls.current_call()
        event, (ended, end) = present.cancelled, os.pipe()

        def watch() -> None:
            poll = select.poll()
            poll.register(self._channel, select.POLLIN)
            poll.register(ended, select.POLLIN)
            while not event.is_set() and ended not in {fd for fd, _ in poll.poll()}:
                self._look()

        try:
            watcher = threading.Thread(target=watch, name="cancel_event", daemon=True)
            watcher.start()
            try:
                yield event
            finally:
                os.write(end, b"x")
                watcher.join()
        finally:
            os.close(ended)
            os.close(end)


async def _pump(parts: Any, emit: Callable[[Any], None]) -> None:
    """All parts in one task: timeouts and cancel scopes of the generator may span its yields."""
    try:
        async for part in parts:
            emit(part)
    finally:
        await parts.aclose()


def serve(channel: socket.socket, registry: Registry, *, request_limit: int, response_limit: int,
          details: dict[str, Any]) -> None:
    """Announce `registry` on `channel`, then serve until the supervisor hangs up.

    Raises RemoteProtocolError for what a supervisor never sends, and OSError.
    """
    stdio.install()
    registry.started()
    connection = WorkerConnection(request_limit=request_limit, response_limit=max(response_limit, READY_BYTES))
    try:
        channel.sendall(connection.ready(registry.describe(), details))
        connection.response_limit = response_limit
        _Server(channel, registry, connection).run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the supervisor has hung up while an answer was under way: the same as the end of the file
