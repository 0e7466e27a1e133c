"""Serves calls on one inherited channel, one at a time: one receive and one send for each.

    supervisor --- request -----------------> loop ---> function
               --- cancellation, credit ----> (looked for while it runs)
               <-- parts, then one answer --- loop

Nothing is done per call that can be done per worker: signatures are resolved at exposure, asyncio is imported when the
first async function runs. The loop ends at end-of-file.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from pyproc_wire.connection import BadRequest, Called, CancelRequested, ConnectionClosed, WorkerConnection
from pyproc_wire.errors import LocalProtocolError, UnencodableValue
from pyproc_wire.limits import RECV_BYTES
from pyproc_worker import call as calls
from pyproc_worker import failure, stdio
from pyproc_worker.registry import ASYNC, ASYNC_GENERATOR, GENERATOR, PLAIN, BadBody, Function, Registry

READY_BYTES = 1 << 20  # what a worker may say of itself; the supervisor takes no more


class _Server:
    def __init__(self, channel: socket.socket, registry: Registry, connection: WorkerConnection) -> None:
        self._channel = channel
        self._registry = registry
        self._connection = connection
        self._events: list[Any] = []
        self._call: calls.Call | None = None
        self._asyncio: Any = None
        self._closed = False
        self._lock = threading.Lock()

    def run(self) -> None:
        receive, connection = self._channel.recv, self._connection
        while not self._closed:
            events = self._events or connection.receive(receive(RECV_BYTES))
            self._events = []
            for position, event in enumerate(events):
                if type(event) is Called:
                    self._events = events[position + 1:]
                    self._channel.sendall(self._answer(event))
                    break
                if type(event) is BadRequest and event.id is not None:
                    self._channel.sendall(connection.failure(event.id, event.code, event.error, public=True))
                elif type(event) is ConnectionClosed:
                    return

    def _answer(self, request: Any) -> bytes:
        function = self._registry.lookup(request.method)
        connection, id = self._connection, request.id
        self._registry.handled += 1
        if function is None:
            return connection.failure(id, "not_found", f"no function {request.method[:200]!r} is exposed", public=True)
        deadline = None if request.deadline_ms is None else time.monotonic() + request.deadline_ms / 1000
        present = calls.Call(id, request.method, deadline, request.tenant, request.principal, self._look)
        self._call = present
        calls.begin(present)
        try:
            args, kwargs = function.bind(connection.value(request.body))
            if function.kind is PLAIN and not function.wants_event:
                value = function.fn(*args, **kwargs)
            else:
                value = self._run(function, args, kwargs, id, present, stream=request.stream)
            if request.stream and function.kind in (GENERATOR, ASYNC_GENERATOR):
                value = None
            return connection.success(id, value, stdio.taken())
        except UnencodableValue as error:
            return self._failed(id, failure.classify(error))
        except LocalProtocolError as error:
            return connection.failure(id, "payload_too_large", f"the result is too large: {error}", bound="response",
                                      public=True, output=stdio.taken())
        except (calls.Cancelled, BadBody) as error:
            return self._failed(id, failure.classify(error))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is answered or logged
            return self._failed(id, failure.classify(error, function.public_errors))
        finally:
            self._call = None

    def _failed(self, id: int, what: failure.Failure) -> bytes:
        return self._connection.failure(id, what.code, what.error, path=what.path, bound=what.bound,
                                        public=what.public, report=what.report, output=stdio.taken())

    def _run(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], id: int, present: calls.Call, *,
             stream: bool) -> Any:
        watcher = None
        if function.wants_event:
            kwargs["cancel_event"] = present.cancelled
            stop = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(present, stop), daemon=True)
            watcher.start()
        try:
            if function.kind is ASYNC:
                return self._complete(function.fn(*args, **kwargs))
            if function.kind is PLAIN:
                return function.fn(*args, **kwargs)
            parts = (self._drive(function.fn(*args, **kwargs)) if function.kind is ASYNC_GENERATOR
                     else function.fn(*args, **kwargs))
            return self._stream(parts, id, present) if stream else list(parts)
        finally:
            if watcher is not None:
                stop.set()

    def _stream(self, parts: Iterator[Any], id: int, present: calls.Call) -> None:
        try:
            for part in parts:
                while self._connection.window(id) <= 0 and not present.cancelled.is_set() and not self._closed:
                    self._take(self._channel.recv(RECV_BYTES))
                self._look()
                if present.cancelled.is_set() or self._closed:
                    raise calls.Cancelled("the caller gave up")
                self._channel.sendall(self._connection.part(id, part))
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _complete(self, awaitable: Any) -> Any:
        if self._asyncio is None:
            import asyncio

            self._asyncio = asyncio.new_event_loop()
        return self._asyncio.run_until_complete(awaitable)

    def _drive(self, parts: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._complete(parts.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._complete(parts.aclose())

    def _look(self) -> None:
        """Take in what has arrived, without waiting: a cancellation, a credit, the end."""
        try:
            data = self._channel.recv(RECV_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        with self._lock:
            for event in self._connection.receive(data):
                if type(event) is CancelRequested:
                    if self._call is not None and str(event.id) == self._call.id:
                        self._call.cancelled.set()
                elif type(event) is ConnectionClosed:
                    self._closed = True
                    if self._call is not None:
                        self._call.cancelled.set()
                else:
                    self._events.append(event)

    def _watch(self, present: calls.Call, stop: threading.Event) -> None:
        import select

        poll = select.poll()
        poll.register(self._channel, calls.POLL_IN)
        while not stop.is_set() and not present.cancelled.is_set():
            if poll.poll(20) and not stop.is_set():
                self._look()


def serve(channel: socket.socket, registry: Registry, *, request_limit: int, response_limit: int,
          details: dict[str, Any]) -> None:
    """Announce `registry` on `channel`, then serve until the supervisor hangs up. Raises RemoteProtocolError, OSError."""
    stdio.install()
    connection = WorkerConnection(request_limit=request_limit, response_limit=max(response_limit, READY_BYTES))
    channel.sendall(connection.ready(registry.describe(), details))
    connection.response_limit = response_limit
    _Server(channel, registry, connection).run()


