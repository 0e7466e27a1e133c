"""`run_worker()`: the exposed functions served on a unix socket, without a supervisor (contract, section 7).

    client -- connect --> accept loop (main thread) -- a thread for each connection --> one function at a time

Rules: functions run one at a time, under one lock, as they do in a pool, so that a script needs no locks of its own; a
thread serves each connection, so that a slow client holds up nobody. There is no sandbox here and no kill: a deadline
is checked before a call begins and by `check_cancelled`. The socket belongs to its owner alone (0600 from the first
moment, by the umask); who may connect is decided by that.

The zygote sets SUPERVISED before it loads the script: `run_worker()` at its end then returns at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import stat
import sys
import threading
import time
from typing import Any

from pyproc_wire.connection import BadRequest, Called, CancelRequested, ConnectionClosed
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.limits import RECV_BYTES
from pyproc_worker import failure, loop, registry

SUPERVISED = False
CONNECTIONS_MAX = 256  # each has a thread; one more is hung up on
BACKLOG = 128
TURN_POLL_SECONDS = 0.05  # how soon a call that waits for its turn hears of its cancellation
GRACE_SECONDS = 5.0  # after SIGTERM, for the calls under way
PATH_BYTES_MAX = 107  # sun_path without its final zero
CODECS = ("auto", "json", "msgpack")
LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def run_worker(socket_path: str | None = None, codec_type: str = "auto") -> None:
    """Serve until SIGTERM or SIGINT. Raises ValueError for a wrong setting, OSError where no socket can be made."""
    if SUPERVISED:
        return
    path = socket_path or os.environ.get("PYPROC_SOCKET_PATH", "")
    codec = codec_type if codec_type != "auto" else os.environ.get("PYPROC_CODEC_TYPE") or "auto"
    level = (os.environ.get("PYPROC_LOG_LEVEL") or "error").lower()
    if not path:
        raise ValueError("no socket path: give run_worker(socket_path=…) or set PYPROC_SOCKET_PATH")
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise ValueError(f"socket path {path!r} is longer than {PATH_BYTES_MAX} bytes; use a shorter one")
    if codec not in CODECS:
        raise ValueError(f"codec type is {codec!r}; write {', '.join(CODECS)}")
    if level not in LOG_LEVELS:
        raise ValueError(f"PYPROC_LOG_LEVEL is {level!r}; write {', '.join(LOG_LEVELS)}")
    registry.current.freeze()
    listener = _listen(path)
    made = os.lstat(path)
    try:
        _Door(listener, codec, LOG_LEVELS[level]).run()
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            now = os.lstat(path)
            if (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)


def _listen(path: str) -> socket.socket:
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{error.strerror}: the socket cannot be made, check the folder", path) from error
    finally:
        os.umask(before)
    return listener


def _clear(path: str) -> None:
    """Remove our own socket of an earlier run; anything else at `path` is left and refused."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise FileExistsError(17, "something that is not our socket is there; remove it or use another path", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog means alive, and is not waited for
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise FileExistsError(17, "another worker serves there; stop it or use another path", path)


class _Door:
    """Accepts, and ends in order: no new connection, the calls under way finish, the threads are waited for."""

    def __init__(self, listener: socket.socket, codec: str, level: int) -> None:
        self._listener = listener
        self._codec = codec
        self._level = level
        self._turn = threading.Lock()
        self._threads: dict[threading.Thread, socket.socket] = {}

    def run(self) -> None:
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        olds = {}
        if threading.current_thread() is threading.main_thread():
            def stop(number: int, frame: object) -> None:
                with contextlib.suppress(BlockingIOError):
                    wake.send(b"x")

            olds = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._accept(woken)
        finally:
            for number, old in olds.items():
                signal.signal(number, old)
            wake.close()
            woken.close()
            self._finish()

    def _accept(self, woken: socket.socket) -> None:
        self._listener.setblocking(False)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if woken.fileno() in ready:
                return
            try:
                channel, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                _say(f"event=accept_failed error={error.strerror!r}")
                time.sleep(TURN_POLL_SECONDS)  # out of descriptors: the connections that end will free some
                continue
            self._threads = {thread: open_ for thread, open_ in self._threads.items() if thread.is_alive()}
            if len(self._threads) >= CONNECTIONS_MAX:
                channel.close()
                continue
            channel.setblocking(True)
            thread = threading.Thread(target=self._serve, args=(channel,), daemon=True)
            self._threads[thread] = channel
            thread.start()

    def _serve(self, channel: socket.socket) -> None:
        from pyproc_wire.codec import JSON, MESSAGEPACK
        from pyproc_wire.server_connection import ServerConnection

        only = {"auto": None, "json": JSON, "msgpack": MESSAGEPACK}[self._codec]
        with channel:
            try:
                _Client(channel, ServerConnection(only), self._turn, self._level).run()
            except OSError:
                pass  # the client has gone; its thread ends with it

    def _finish(self) -> None:
        for channel in self._threads.values():
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RD)
        end = time.monotonic() + GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))


class _Client(loop._Server):
    """The worker's loop for one client: calls wait for their turn, failures carry an error id, a breach is answered."""

    _loop: Any = None  # one event loop for the process, used under the lock: a script's asyncio objects belong to it

    def __init__(self, channel: socket.socket, connection: Any, turn: threading.Lock, level: int) -> None:
        super().__init__(channel, registry.current, connection)
        self._turn = turn
        self._level = level
        self._gone: set[int] = set()
        self._breach: RemoteProtocolError | None = None

    def run(self) -> None:
        while True:
            while self._events:
                event = self._events.pop(0)
                if type(event) is Called:
                    self._channel.sendall(self._answer(event))
                elif type(event) is BadRequest:
                    self._channel.sendall(self._connection.failure(event.id, event.code, event.error, public=True))
            if self._breach is not None:
                self._channel.sendall(self._connection.failure(None, self._breach.code, str(self._breach)))
                return
            if self._closed:
                return
            self._take(self._channel.recv(RECV_BYTES))

    def _take(self, data: bytes) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                events = self._connection.receive(data)
            except RemoteProtocolError as error:
                events, self._breach, self._closed = error.before, error, True
            for event in events:
                if type(event) is CancelRequested:
                    self._gone.add(event.id)
                    if self._call is not None and str(event.id) == self._call.id:
                        self._call.cancelled.set()
                elif type(event) is ConnectionClosed:
                    self._closed = True
                    if self._call is not None:
                        self._call.cancelled.set()
                else:
                    self._events.append(event)

    def _look(self) -> None:
        if not self._closed:
            super()._look()

    def _answer(self, request: Any) -> bytes:
        born = time.monotonic()
        try:
            while not self._turn.acquire(timeout=TURN_POLL_SECONDS):
                self._look()
                if request.id in self._gone:
                    break
            else:
                try:
                    return self._run_now(request, born)
                finally:
                    self._turn.release()
            return self._connection.failure(request.id, "cancelled", "the caller gave up", public=True)
        except LocalProtocolError:
            if self._closed:
                return b""  # the client ended or broke the rules while its call ran: nothing can be told any more
            raise
        finally:
            self._gone.discard(request.id)

    def _run_now(self, request: Any, born: float) -> bytes:
        if request.id in self._gone:
            return self._connection.failure(request.id, "cancelled", "the caller gave up", public=True)
        if request.deadline_ms is not None:
            left = request.deadline_ms - int((time.monotonic() - born) * 1000)
            if left <= 0:
                return self._connection.failure(request.id, "deadline_exceeded", "the time was over before the call "
                                                "began; allow more time", public=True)
        return super()._answer(request)

    def _failed(self, id: int, what: failure.Failure) -> bytes:
        error_id = secrets.token_hex(8)
        if what.report is not None and self._level <= LOG_LEVELS["error"]:
            method = self._call.method if self._call is not None else ""
            _say(f"event=function_failed error_id={error_id} method={method!r} type={what.report.type}",
                 what.report.traceback)
        connection: Any = self._connection
        return connection.failure(id, what.code, what.error, path=what.path, bound=what.bound,  # type: ignore[no-any-return]
                                  error_id=error_id)

    def _complete(self, awaitable: Any) -> Any:
        if _Client._loop is None:
            import asyncio

            _Client._loop = asyncio.new_event_loop()
        return _Client._loop.run_until_complete(awaitable)


def _say(line: str, details: str = "") -> None:
    """One event on standard error; control characters of hostile text are escaped, its lines indented."""
    lines = [line, *("    " + text.encode("unicode_escape").decode() for text in details.splitlines())]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
