"""The server of a stand-alone worker: one thread for all connections, one (the caller of `run`) for all functions.

    session thread: accept, receive, flush, deadlines, health      main thread: functions, in the order of arrival

A function that holds the interpreter's lock for long delays the session thread too; that is the price of a process that
nobody supervises.
"""

from __future__ import annotations

import heapq
import os
import queue
import selectors
import signal
import sys
import threading
from collections.abc import Callable
from itertools import count
from socket import socket, socketpair
from time import monotonic, time
from types import GeneratorType
from typing import Any, Final

from pyproc_wire.codec import Codec
from pyproc_wire.errors import printable
from pyproc_wire.messages import LinkRequest
from pyproc_worker import call as calls
from pyproc_worker import streams
from pyproc_worker.call import Call
from pyproc_worker.failure import Failure, classify, refused_body, unsendable
from pyproc_worker.registry import HEALTH, Function, Registry
from pyproc_worker.session import RETRY_SECONDS, Session

CONNECTIONS: Final = 1024
"""Connections at once, all of one uid (`connections_per_uid` of the service)."""

WAITING_CALLS: Final = 4096
"""Calls of all clients that wait for the function thread; the next is refused."""

FULL_SECONDS: Final = 0.1
"""Seconds for which nobody is accepted after there was no descriptor for a connection."""

DRAIN_SECONDS: Final = 10.0
"""Seconds that the running call has to end after a stop, as the service's `drain`."""


class Log:
    """One JSON object a line on standard error: an event with fields, nothing below the chosen level."""

    def __init__(self, level: str) -> None:
        levels = ("debug", "info", "warning", "error")
        self._kept = frozenset(levels[levels.index(level) :])

    def write(self, level: str, event: str, **fields: Any) -> None:
        if level not in self._kept:
            return
        import json

        line = json.dumps({"time": round(time(), 3), "level": level, "event": event, **fields}) + "\n"
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # nobody reads the log any more; the calls go on


class Server:
    """Serves a registry on a listening socket. `run` blocks until `stop`, which may come from a signal handler."""

    def __init__(self, listener: socket, registry: Registry, codec: Codec | None, log: Log, withdraw: Callable[[], None]) -> None:
        """`withdraw` takes the socket out of the file system."""
        listener.setblocking(False)
        self._withdraw = withdraw
        self._listener = listener
        self._registry = registry
        self._codec = codec
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._sessions: set[Session] = set()
        self._deadlines: list[tuple[float, int, Session, Call]] = []
        self._order = count()
        self._waiting: queue.SimpleQueue[tuple[Session, Call, Function] | None] = queue.SimpleQueue()
        self._woken_by, self._wakener = socketpair()
        self._woken_by.setblocking(False)
        self._wakener.setblocking(False)
        self._full_until: float | None = None  # time.monotonic() before which nobody is accepted
        self._stopping = False
        self._finished = False  # no function runs any more
        self._coroutines: streams.Coroutines | None = None

    def run(self) -> None:
        """Serve until `stop`; the running call is finished first if that takes no longer than 10 s."""
        self._registry.born = monotonic()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken_by, selectors.EVENT_READ, self._woken)
        thread = threading.Thread(target=self._serve_sessions, name="sessions", daemon=True)
        thread.start()
        self._log.write("info", "serving", socket=self._listener.getsockname(), pid=os.getpid())
        try:
            while (waiting := self._waiting.get()) is not None:
                self._answer(*waiting)
                del waiting
        finally:
            self._stopping = self._finished = True
            self._wake()
            thread.join()
            if self._coroutines is not None:
                self._coroutines.close()
            self._log.write("info", "stopped")

    def close(self) -> None:
        """Release the descriptors; after `run`, and when no signal comes to them any more."""
        self._selector.close()
        self._woken_by.close()
        self._wakener.close()

    @property
    def signals(self) -> int:
        """The descriptor for `signal.set_wakeup_fd`: SIGTERM and SIGINT stop the server, whatever the main thread does.

        A handler alone would run late or never: the main thread may be about to wait for a call, or in C code.
        """
        return self._wakener.fileno()

    def stop(self) -> None:
        """End `run`. From any thread; the second time the process ends at once."""
        if self._stopping:
            self._end_now()
        self._stopping = True
        self._waiting.put(None)
        self._wake()

    def _wake(self) -> None:
        try:
            self._wakener.send(_NUDGE)
        except BlockingIOError:
            pass  # full: the session thread has reason enough to wake

    def _end_now(self) -> None:
        try:
            self._withdraw()
        finally:
            os._exit(0)

    # The function thread

    def _answer(self, session: Session, call: Call, function: Function) -> None:
        if self._stopping:
            session.fail(call, _STOPPING)
            return
        if call.cancelled:
            return  # answered already
        calls.present = call
        try:
            failure = self._run(session, call, function)
            if failure is not None:
                self._fail(session, call, failure)
        finally:
            calls.present = None

    def _run(self, session: Session, call: Call, function: Function) -> Failure | None:
        """Run the function and answer with its result; what is to be answered otherwise."""
        self._registry.handled += 1
        try:
            value = session.value(call)
            if function.check is not None:
                value = function.check(value)
        except BaseException as error:  # noqa: BLE001 - the check of a type may be the script's own code
            return refused_body(error, function.public_errors)
        try:
            if function.wants_event:
                call.event = threading.Event()
                if call.cancelled:
                    call.event.set()
                result = function.run(value, cancel_event=call.event)
            else:
                result = function.run(value)
            if type(result) in streams.UNFINISHED:
                result = self._finish(session, call, result)
        except BaseException as error:  # noqa: BLE001 - whatever a function raises is the answer to its call
            return classify(error, call=call, public_errors=function.public_errors)
        try:
            session.succeed(call, result)
        except BaseException as error:  # noqa: BLE001 - a property of a result may be the script's own code
            return unsendable(error)
        return None

    def _finish(self, session: Session, call: Call, result: Any) -> Any:
        if type(result) is GeneratorType:
            return streams.drain(session, call, result, stream=call.stream)
        if self._coroutines is None:
            self._coroutines = streams.Coroutines()
        return self._coroutines.finish(session, call, result, stream=call.stream)

    def _fail(self, session: Session, call: Call, failure: Failure) -> None:
        report = failure.report
        error_id = None if report is None else os.urandom(8).hex()
        session.fail(call, failure, error_id=error_id)
        if report is not None:
            self._log.write(
                "error",
                "call_failed",
                error_id=error_id,
                method=call.method,
                code=failure.code,
                type=report.type,
                traceback=report.traceback,
            )

    # The session thread

    def _serve_sessions(self) -> None:
        end_at: float | None = None
        while not (self._finished and not any(session.wants[1] for session in self._sessions)):
            if self._stopping and end_at is None:
                end_at = monotonic() + DRAIN_SECONDS
                if self._full_until is None:
                    self._selector.unregister(self._listener)
                self._full_until = None
            for key, events in self._selector.select(self._patience(end_at)):
                if not isinstance(key.data, Session):
                    key.data()
                    continue
                if events & selectors.EVENT_READ:
                    key.data.receive()
                if events & selectors.EVENT_WRITE:
                    key.data.flush()
            self._expire()
            if self._full_until is not None and monotonic() >= self._full_until:
                self._full_until = None
                self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            if end_at is not None and monotonic() >= end_at:
                self._log.write("error", "stopped_while_running")
                self._end_now()
            for session in list(self._sessions):
                self._follow(session)
        for session in list(self._sessions):
            session.close()
            self._follow(session)

    def _patience(self, end_at: float | None) -> float | None:
        moments = [moment for session in self._sessions if (moment := session.stalled_at) is not None]
        if self._deadlines:
            moments.append(self._deadlines[0][0])
        moments += [moment for moment in (end_at, self._full_until) if moment is not None]
        return max(0.0, min(moments) - monotonic()) if moments else None

    def _woken(self) -> None:
        for byte in self._woken_by.recv(4096):
            if byte in _STOPS:
                self.stop()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return  # who asked has gone again
        except OSError as error:  # no descriptor is left: the listener stays readable, and would be told again and again
            self._log.write("warning", "accept_failed", errno=error.errno)
            self._selector.unregister(self._listener)
            self._full_until = monotonic() + FULL_SECONDS
            return
        session = Session(sock, self._codec, self._submit, self._wake)
        if len(self._sessions) >= CONNECTIONS:
            session.turn_away(Failure("resource_exhausted", f"{CONNECTIONS} connections are open, the limit", bound="connections"))
        self._sessions.add(session)
        self._selector.register(sock, selectors.EVENT_READ, session)

    def _follow(self, session: Session) -> None:
        """Poll for what the session wants now; forget one that is over."""
        if not session.over and (moment := session.stalled_at) is not None and moment <= monotonic():
            self._log.write("warning", "client_does_not_read")
            session.close()
        if session.over:
            self._selector.unregister(session.sock)
            session.sock.close()
            self._sessions.discard(session)
            return
        reads, writes = session.wants
        events = reads * selectors.EVENT_READ | writes * selectors.EVENT_WRITE
        if events and events != self._selector.get_key(session.sock).events:
            self._selector.modify(session.sock, events, session)

    def _submit(self, session: Session, request: LinkRequest) -> None:
        """Queue a request for the function thread, or answer it."""
        function = self._registry.lookup(request.method)
        if function is None:
            text = f"no function {printable(request.method)!r} is exposed"
            session.refuse(request, Failure("not_found", text))
        elif request.deadline_ms == 0:
            session.refuse(request, _LATE)
        elif self._stopping:
            session.refuse(request, _STOPPING)
        elif function.name != HEALTH and self._waiting.qsize() >= WAITING_CALLS:
            text = f"{WAITING_CALLS} calls are waiting, the limit"
            session.refuse(request, Failure("resource_exhausted", text, bound="queue"), retry_after=RETRY_SECONDS)
        else:
            call = session.open(request, function.timeout)
            if function.name == HEALTH:
                self._answer_health(session, call, function)
                return
            if call.deadline is not None:
                heapq.heappush(self._deadlines, (call.deadline, next(self._order), session, call))
            self._waiting.put((session, call, function))

    def _answer_health(self, session: Session, call: Call, function: Function) -> None:
        failure = self._run(session, call, function)
        if failure is not None:
            self._fail(session, call, failure)

    def _expire(self) -> None:
        """Answer the calls whose time is over; forget those that were answered before."""
        now, deadlines = monotonic(), self._deadlines
        while deadlines and deadlines[0][0] <= now:
            _, _, session, call = heapq.heappop(deadlines)
            session.abandon(call, _LATE)
        if len(deadlines) > WAITING_CALLS:
            deadlines[:] = [entry for entry in deadlines if entry[2].is_open(entry[3])]
            heapq.heapify(deadlines)


_NUDGE: Final = b"\0"
"""No signal has the number 0."""

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)

_LATE: Final = Failure("deadline_exceeded", "deadline has passed")
_STOPPING: Final = Failure("unavailable", "worker is stopping")
