"""One client of a stand-alone worker: its connection, its open calls, and the bytes that it has not read yet.

Two threads use a session: the session thread feeds what arrives and flushes what is left, the main thread answers.
`_lock` guards all state; nothing waits while it is held, sends included, so that a client which does not read holds up
nobody but itself.

A call is open until it is answered, and the first answer counts: of the function, a cancellation or the deadline. What
comes later finds another call under the id, or none, and is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pyproc_wire.codec import Codec
from pyproc_wire.connection import (
    BadRequest,
    CancelRequested,
    ConnectionClosed,
    CreditGranted,
    ServerConnection,
)
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.limits import RECV_BYTES
from pyproc_wire.messages import LinkRequest
from pyproc_worker.call import Call, Cancelled
from pyproc_worker.failure import Failure

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

UNREAD_BYTES: Final = 1 << 20
"""Bytes of answers that may wait for a client; above it nothing more is read from it and its streams pause."""

OPEN_CALLS: Final = 1024
"""Open calls of one connection; the next is refused."""

STALLED_SECONDS: Final = 10.0
"""Seconds for which a client may take none of the bytes that wait for it, before its connection ends."""

RETRY_SECONDS: Final = 1.0
"""What a client is told to wait when too many of its calls are open."""

Submit = Callable[["Session", LinkRequest], None]


class Session:
    """One connection. `over` once it is closed; `wake` tells the session thread that its wishes have changed."""

    def __init__(self, sock: socket, codec: Codec | None, submit: Submit, wake: Callable[[], None]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.over = False
        self.connection = ServerConnection(codec)
        self._submit = submit
        self._wake = wake
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._calls: dict[int, Call] = {}
        self._unread = bytearray()
        self._ending = False  # close once everything is read
        self._moved = monotonic()

    # The session thread

    def receive(self) -> None:
        """Take in what the client sent. Never raises: a client that breaks the rules is told and cut off."""
        try:
            data = self.sock.recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        with self._lock:
            if self.over or self._ending:
                return
            try:
                events = self.connection.receive(data)
            except RemoteProtocolError as error:
                self._give_up_all()
                self._send(self.connection.failure(None, error.code, str(error)))
                self._ending = True
                self.flush()
            else:
                self._take_in(events)

    def _take_in(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, LinkRequest):
                if len(self._calls) < OPEN_CALLS:
                    self._submit(self, event)
                else:
                    text = f"connection has {OPEN_CALLS} open calls, the limit"
                    failure = Failure("resource_exhausted", text, bound="in_flight")
                    self._fail(event.id, failure, retry_after=RETRY_SECONDS)
            elif type(event) is BadRequest:
                self._fail(event.id, Failure(event.code, event.error))
            elif type(event) is CancelRequested:
                call = self._calls.get(event.id)
                if call is not None:
                    self.abandon(call, Failure("cancelled", "call was cancelled"))
            elif type(event) is CreditGranted:
                self._tell(self._calls.get(event.id))
            elif type(event) is ConnectionClosed:
                self.close()

    def _tell(self, call: Call | None) -> None:
        self._changed.notify_all()
        if call is not None and call.notify is not None:
            call.notify()

    def flush(self) -> None:
        """Send what the client takes; close when that was the last and the connection is to end."""
        with self._lock:
            if self.over:
                return
            try:
                sent = self.sock.send(self._unread, MSG_DONTWAIT | MSG_NOSIGNAL) if self._unread else 0
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent:
                full = len(self._unread) >= UNREAD_BYTES
                del self._unread[:sent]
                self._moved = monotonic()
                if full and len(self._unread) < UNREAD_BYTES:
                    for call in list(self._calls.values()):
                        self._tell(call)
            if self._ending and not self._unread:
                self.close()

    @property
    def wants(self) -> tuple[bool, bool]:
        """Whether to read from the client, and whether bytes wait for it."""
        with self._lock:
            return not self._ending and len(self._unread) < UNREAD_BYTES, bool(self._unread)

    @property
    def stalled_at(self) -> float | None:
        """The time.monotonic() at which the client has kept us waiting for too long, if it does."""
        with self._lock:
            return self._moved + STALLED_SECONDS if self._unread else None

    def close(self) -> None:
        """End the connection; its open calls are given up. The session thread closes the socket, as it polls it."""
        with self._lock:
            if not self.over:
                self.over = True
                self._give_up_all()
                self._unread.clear()
                self._wake()

    def _give_up_all(self) -> None:
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            call.give_up()
        self._changed.notify_all()

    # Calls, from either thread

    def open(self, request: LinkRequest, timeout: float | None) -> Call:
        """The call of a request that is going to be answered."""
        with self._lock:
            call = self._calls[request.id] = Call(request, timeout, _nothing_to_look_for, monotonic())
            return call

    def succeed(self, call: Call, value: Any) -> None:
        """Answer with a value, if the call is open. Raises UnencodableValue, LocalProtocolError and leaves it open."""
        with self._lock:
            if self._calls.get(call.number) is call:
                raw = self.connection.success(call.number, value)
                del self._calls[call.number]
                self._send(raw)

    def fail(self, call: Call, failure: Failure, *, error_id: str | None = None) -> bool:
        """Answer with a failure; whether the call was open."""
        with self._lock:
            if self._calls.get(call.number) is not call:
                return False
            del self._calls[call.number]
            self._fail(call.number, failure, error_id=error_id)
            return True

    def abandon(self, call: Call, failure: Failure) -> None:
        """Answer an open call whose function is not waited for; one that has not begun will not begin."""
        with self._lock:
            if self._calls.get(call.number) is call:
                call.give_up()  # first: who reads the answer may rely on it
                self.fail(call, failure)

    def is_open(self, call: Call) -> bool:
        """Whether the call has no answer yet."""
        return self._calls.get(call.number) is call

    def turn_away(self, failure: Failure) -> None:
        """Answer the connection as a whole and end it."""
        with self._lock:
            self._ending = True
            self._fail(None, failure, retry_after=RETRY_SECONDS)

    def refuse(self, request: LinkRequest, failure: Failure, *, retry_after: float | None = None) -> None:
        """Answer a request that was never opened."""
        with self._lock:
            self._fail(request.id, failure, retry_after=retry_after)

    def _fail(
        self,
        id: int | None,
        failure: Failure,
        *,
        error_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        if self.over:
            return
        raw = self.connection.failure(
            id,
            failure.code,
            failure.error,
            path=failure.path,
            bound=failure.bound,
            error_id=error_id,
            retry_after=retry_after,
        )
        self._send(raw)

    def _send(self, raw: bytes) -> None:
        if not self._unread:
            self._moved = monotonic()
        self._unread += raw
        self.flush()
        if self._unread and not self.over:
            self._wake()

    def value(self, call: Call) -> Any:
        """The decoded body. Raises RemoteProtocolError."""
        return self.connection.value(call.body)

    # Port

    def window(self, call: Call) -> int:
        with self._lock:
            open_still = self._calls.get(call.number) is call and len(self._unread) < UNREAD_BYTES
            return self.connection.window(call.number) if open_still else 0

    def send_part(self, call: Call, value: Any) -> None:
        with self._lock:
            if self._calls.get(call.number) is not call:
                raise Cancelled("caller gave up")
            self._send(self.connection.part(call.number, value))

    def wait(self, call: Call) -> None:
        with self._lock:
            self._changed.wait_for(lambda: call.cancelled or self.window(call) > 0)

    def attach(self, loop: AbstractEventLoop) -> None:
        pass  # the session thread takes in what arrives, whatever the event loop does


def _nothing_to_look_for() -> None:
    """The session thread takes in a client's messages as they come."""
