"""The supervisor's end of a worker's channel: calls in, events out. The peer is hostile.

Every breach is fatal: a worker that forges, doubles or misnumbers an answer is killed, not corrected. What
arrived whole before the breach stands in the error's `before`. No I/O and no clock: who owns the connection
moves the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, NoReturn

from msgspec import Raw

from pyproc_wire.answers import failed, kind_of, ready_note
from pyproc_wire.arena import NOWHERE, Receiver, Sender
from pyproc_wire.codec import MESSAGEPACK, Codec, Encoded, reason
from pyproc_wire.connection_state import (
    CALL,
    CANCELLATION,
    CREDIT,
    FROM_WORKER,
    NO_ITEMS,
    NO_STREAM,
    PART,
    READY,
    REQUEST,
    SUCCESS,
    TO_WORKER,
    State,
    call_kind,
)
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.events import Answered, BriefSuccess, ConnectionClosed, Failed, Part, Ready, Succeeded
from pyproc_wire.extensions import DECODE_FAILURES
from pyproc_wire.frame import BRIEF_HEADERS, FrameReader, frame, header
from pyproc_wire.limits import (
    CANCEL_REASON_BYTES,
    CREDIT_MAX,
    DEADLINE_MS_MAX,
    HEADER_BYTES,
    ID_MAX,
    PARTS_AHEAD,
    REQUEST_BYTES,
    RESPONSE_BYTES,
)
from pyproc_wire.messages import MISSING, Answer, Asking, Items, ReadyNote
from pyproc_wire.texts import cut

CallerEvent = Ready | Succeeded | Failed | Part | Answered | ConnectionClosed

_CLOSED: Final = State.CLOSED
_NULL: Final = (b"\xc0", b"null")


def measure_request(codec: Codec, asking: Asking, limit: int) -> None:
    """Raise LocalProtocolError if `asking`, whose body is encoded, is beyond `limit` bytes with the longest id. The body is not
    copied for it."""
    null = Raw(codec.encode(None))
    rest = Asking(ID_MAX, asking.method, null, asking.deadline_ms, asking.stream, asking.tenant, asking.principal)
    size = len(codec.encode(rest)) - len(null) + len(asking.body)
    if size > limit:
        raise _too_large(size, limit)


def plain_request(codec: Codec, id: int, method: str, body: object, deadline_ms: int, limit: int) -> bytes:
    """One frame of at most `limit` bytes that asks for a plain call, made before it is known of whom: the connection `expect`s its
    answer then. Raises as `CallerConnection.request`."""
    prepared: Any = codec.prepare(body, 0) if type(body) is not Raw else body or MISSING
    payload = codec.encode_prepared(Asking(id, method, prepared, deadline_ms), prepared, body)
    if len(payload) > limit:
        raise _too_large(len(payload), limit)
    return header(len(payload)) + payload


def _too_large(size: int, limit: int) -> LocalProtocolError:
    return LocalProtocolError(f"request is {size} bytes, limit is {limit}", code="payload_too_large")


class CallerConnection:
    """One worker's channel, seen from outside the sandbox. `limit` bounds answers, `request_limit`
    requests, in bytes. `sender` and `receiver` are of the arenas beside it, where there are some."""

    __slots__ = (
        "_decode",
        "_brief_bytes",
        "_decode_any",
        "_decode_brief",
        "_decode_success",
        "_flowing",
        "_may_ask",
        "_open",
        "_permitted",
        "_prepare",
        "_reader",
        "_receiver",
        "_sender",
        "_state",
        "_streams",
        "codec",
        "request_limit",
    )

    def __init__(
        self,
        codec: Codec = MESSAGEPACK,
        limit: int = RESPONSE_BYTES,
        request_limit: int = REQUEST_BYTES,
        sender: Sender | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        self.codec = codec
        self.request_limit = request_limit
        self._sender = NOWHERE if sender is None else sender
        self._prepare = codec.prepare if sender is None else codec.prepare_beside(sender)
        self._receiver = receiver
        self._decode_any: Callable[[Encoded], Any] | None = None
        self._reader = FrameReader(limit)
        self._decode = codec.decoder(Answer)
        self._decode_success = codec.decoder(Succeeded)
        self._decode_brief = codec.decoder(BriefSuccess)
        self._open: dict[int, int] = {}  # id -> parts that may still come, NO_STREAM for a plain call
        self._streams = 0  # how many of them are streams or batches, which are answered in parts
        self._flowing: set[int] = set()  # those of which a part has come
        self._enter(State.NEW)

    def _enter(self, state: State) -> None:
        self._state = state
        self._permitted = frozenset(FROM_WORKER[state])
        self._may_ask = REQUEST in TO_WORKER[state]
        self._watch_for_brief()

    def _watch_for_brief(self) -> None:
        """A brief success is told at a glance while nothing else may come and no frame is under way."""
        plain = self._state is State.OPEN and not self._streams and not self._reader.mid_frame
        self._brief_bytes = self.codec.brief_bytes if plain else 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def open_calls(self) -> Collection[int]:
        """The ids without a final answer, oldest first. They stay when the connection closes: these calls
        are lost."""
        return self._open.keys()

    @property
    def mid_frame(self) -> bool:
        """Whether an answer has begun and is not complete."""
        return self._reader.mid_frame

    def value(self, raw: Raw, *, views: bool = False) -> Any:
        """The value of a body or part. `views`: what lies in the arena is lent, until `settle`. Raises RemoteProtocolError if it is not
        one within the limits, LocalProtocolError where numpy is missing or the arena cannot be mapped."""
        receiver = self._receiver
        if receiver is None:
            return self.codec.decode_value(raw)
        if self._decode_any is None:  # not before: a worker of one small call never needs it
            self._decode_any = self.codec.decoder_beside(receiver, Any)
        receiver.begin(len(raw))
        receiver.views = views
        try:
            return self.codec.decode_value(raw, self._decode_any)
        except OSError as error:
            raise LocalProtocolError(f"arena cannot be mapped: {error}") from error
        finally:
            if not views:
                receiver.settle()

    def settle(self) -> None:
        """What was lent is over: what is still held of it becomes a copy."""
        if self._receiver is not None:
            self._receiver.settle()

    def request(
        self,
        id: int,
        method: str,
        body: object,
        deadline_ms: int | None = None,
        stream: bool = False,  # noqa: FBT001, FBT002 - CPython calls a function with keyword-only arguments at twice the price
        tenant: str | None = None,
        principal: str | None = None,
        batch: int = 0,
    ) -> bytes:
        """One frame that asks for a call. `body` is a user value, or `Raw` in the connection's codec,
        passed on as it is; with `batch` it is a list, of whose items so many may be called.

        Raises UnencodableValue for a body that cannot be carried, LocalProtocolError for one that is too
        large, an id that is open or no 64-bit integer, and before the worker is ready. Nothing is open then
        that was not before.
        """
        # shifted by so many bits, an integer is 0 if it is an unsigned one of so many, and no other
        if id in self._open or id >> 64 or (deadline_ms or 0) >> 63 or not self._may_ask:
            self._refuse_request(id, deadline_ms)
        codec, sender = self.codec, self._sender
        prepare = codec.prepare if self._open else self._prepare  # beside an open call the arena is in use
        try:
            prepared: Any = prepare(body, 0) if type(body) is not Raw else body or MISSING
            payload = codec.encode_prepared(
                Asking(id, method, prepared, deadline_ms, stream, tenant, principal, batch), prepared, body
            )
            size = len(payload)
            if (size + sender.placed if sender.touched else size) > self.request_limit:
                raise _too_large(size + sender.placed, self.request_limit)
        finally:
            if sender.touched:
                sender.end()
        if stream or batch:
            self._open[id] = NO_ITEMS - batch if batch else PARTS_AHEAD
            self._streams += 1
            self._watch_for_brief()
        else:
            self._open[id] = NO_STREAM
        return header(size) + payload

    def expect(self, id: int) -> None:
        """A `plain_request` is sent with this id. Raises LocalProtocolError as `request`."""
        if id in self._open or not self._may_ask:
            self._refuse_request(id, None)
        self._open[id] = NO_STREAM

    def withdraw(self, id: int) -> None:
        """Forget a request that was not sent; nothing if there is none."""
        if self._open.pop(id, NO_STREAM) != NO_STREAM:
            self._streams -= 1
            self._watch_for_brief()

    def _refuse_request(self, id: int, deadline_ms: int | None) -> NoReturn:
        if not self._may_ask:
            self._refuse_to_send(REQUEST)
        if (deadline_ms or 0) >> 63:
            raise LocalProtocolError(f"deadline is {deadline_ms} ms, possible are 0 to {DEADLINE_MS_MAX}")
        raise LocalProtocolError(f"call id {id} is open already or outside 0 to 2^64-1")

    def cancel(self, id: int, reason: str = "") -> bytes:
        """One frame that gives up on an open call; the call stays open until its answer. The reason is cut
        at 1 KiB."""
        if not self._may_ask:
            self._refuse_to_send(CANCELLATION)
        if id not in self._open:
            raise LocalProtocolError(f"call {id} is not open and cannot be cancelled")
        text = cut(reason, CANCEL_REASON_BYTES)
        return frame(self.codec.encode({"type": "cancellation", "payload": {"id": id, "reason": text}}))

    def credit(self, id: int, n: int) -> bytes:
        """One frame that lets the worker send `n` more parts (1 to 65535) of an open stream."""
        if not self._may_ask:
            self._refuse_to_send(CREDIT)
        window = self._open.get(id)
        if window is None or window < 0 or not 1 <= n <= CREDIT_MAX:
            raise LocalProtocolError(f"credit of {n} for call {id}: open streams take 1 to {CREDIT_MAX}")
        self._open[id] = min(window + n, CREDIT_MAX)
        return frame(self.codec.encode({"type": "credit", "payload": {"id": id, "n": n}}))

    def _refuse_to_send(self, kind: str) -> NoReturn:
        raise LocalProtocolError(f"connection is {self._state.value}, a {kind} cannot be sent")

    def brief(self, data: bytes) -> BriefSuccess | None:
        """The event, if `data` is exactly one brief success of a plain call and no stream is open. Else None, and nothing was taken
        in; `receive` says what it is."""
        size = len(data)
        if size >= self._brief_bytes or data[:HEADER_BYTES] != BRIEF_HEADERS[size]:
            return None
        try:
            success: BriefSuccess = self._decode_brief(data[HEADER_BYTES:])
        except (*DECODE_FAILURES, LocalProtocolError):
            return None
        return success if success.ok and self._open.pop(success.id, 0) else None

    def briefs(self, data: bytes) -> list[BriefSuccess] | None:
        """As `brief`, if `data` is some of them and nothing else."""
        found: list[BriefSuccess] = []
        at, end, longest, decode = 0, len(data), self._brief_bytes, self._decode_brief
        try:
            while at < end:
                size = HEADER_BYTES + data[at + HEADER_BYTES - 1]
                if size >= longest or data[at : at + HEADER_BYTES] != BRIEF_HEADERS[size]:
                    return None
                success: BriefSuccess = decode(data[at + HEADER_BYTES : at + size])
                if not success.ok or success.id not in self._open:
                    return None
                found.append(success)
                at += size
        except (IndexError, *DECODE_FAILURES, LocalProtocolError):
            return None
        if len({success.id for success in found}) != len(found):
            return None
        for success in found:
            del self._open[success.id]
        return found

    def receive(self, data: bytes) -> list[CallerEvent]:
        """What `data` completes; `b""` says that the peer has ended.

        Raises RemoteProtocolError for any breach: the connection is closed then, `before` holds the events
        before it.
        """
        if self._state is _CLOSED:
            raise LocalProtocolError("connection is closed, nothing can be received")
        if not data:
            self._enter(State.CLOSED)
            return [ConnectionClosed(self._reader.mid_frame)]
        breach: RemoteProtocolError | None = None
        try:
            payloads = self._reader.feed(data)
        except RemoteProtocolError as error:
            payloads, breach = error.before, error
        events: list[CallerEvent] = []
        try:
            for payload in payloads:
                event = self._event(payload)
                if isinstance(event, list):
                    events += event
                else:
                    events.append(event)
            if breach is not None:
                raise breach
        except RemoteProtocolError as error:
            self._enter(State.CLOSED)
            error.before = events
            raise
        self._watch_for_brief()
        return events

    def _event(self, payload: bytes | bytearray) -> CallerEvent | list[Answered]:
        success = self._success(payload)
        if success is not None:
            return success
        try:
            answer: Answer = self._decode(payload)
        except DECODE_FAILURES as error:
            raise RemoteProtocolError(f"answer is not valid: {reason(error)}") from error
        kind = kind_of(answer)
        if kind not in self._permitted:
            raise RemoteProtocolError(f"{kind} is not permitted while the connection is {self._state.value}")
        if kind is READY:
            return self._ready(answer)
        id = answer.id
        window = self._open.get(id)  # type: ignore[arg-type]
        if id is None or window is None or (kind is PART and NO_ITEMS <= window <= 0):
            self._refuse_call(id, kind, window)
        if kind is SUCCESS:
            if id in self._flowing and bytes(answer.body) not in _NULL:
                raise RemoteProtocolError(f"stream {id} ends with a body after its parts", id=id)
            if window <= NO_ITEMS and id not in self._flowing:
                raise RemoteProtocolError(f"batch {id} ends and no item of it was answered", id=id)
            self._end(id, window)
            return Succeeded(id, True, answer.body, answer.output)
        if kind is PART and window < NO_ITEMS:
            answered = self._items(id, answer.part)
            self._open[id] = window = window + sum(len(event.values) or 1 for event in answered)
            if window > NO_ITEMS:
                raise RemoteProtocolError(f"batch {id} has more answers than items", id=id)
            self._flowing.add(id)
            return answered
        if kind is PART:
            self._open[id] = window - 1
            self._flowing.add(id)
            return Part(id, answer.part)
        event = failed(id, answer)
        self._end(id, window)
        return event

    def _items(self, id: int, part: Raw) -> list[Answered]:
        try:
            items: Items = self.codec.decoder(Items)(part)
        except DECODE_FAILURES as error:
            raise RemoteProtocolError(f"part of batch {id} is not valid: {reason(error)}", id=id) from error
        failure = items.failure
        if bool(items.results) + bool(items.value) + (failure is not None) != 1:
            raise RemoteProtocolError(f"part of batch {id} has fields that do not belong together", id=id)
        if failure is not None:
            answer = Answer(id, ok=False, error=failure.error, code=failure.code, path=failure.path, bound=failure.bound,
                            public=failure.public, report=failure.report)
            return [Answered(id, [], failed(id, answer))]
        if items.value:
            return [self._answered(id, items.value)]
        try:
            values = self.value(items.results)
        except LocalProtocolError:  # an array, where there is no numpy
            return [self._answered(id, raw) for raw in self.codec.decode(items.results, list[Raw])]
        if type(values) is not list or not values:
            raise RemoteProtocolError(f"part of batch {id} answers no item", id=id)
        return [Answered(id, values, None)]

    def _answered(self, id: int, raw: Raw) -> Answered:
        try:
            return Answered(id, [self.value(raw)], None)
        except LocalProtocolError as error:
            return Answered(id, [], error)

    def _success(self, payload: bytes | bytearray) -> Succeeded | None:
        """A success while no stream is open, which nearly every answer is, costs half of an `Answer`."""
        if self._streams or not self._may_ask:
            return None
        try:
            success: Succeeded = self._decode_success(payload)
        except DECODE_FAILURES:
            return None
        return success if success.ok and self._open.pop(success.id, 0) else None

    def _end(self, id: int, window: int) -> None:
        del self._open[id]
        if window != NO_STREAM:
            self._streams -= 1
            self._flowing.discard(id)

    def _refuse_call(self, id: int | None, kind: str, window: int | None) -> NoReturn:
        call = call_kind(window)
        if kind in CALL[call]:
            raise RemoteProtocolError(f"part of call {id} is beyond the credit", id=id)
        raise RemoteProtocolError(f"{kind} is not permitted for call {id}, which is {call}", id=id)

    def _ready(self, answer: Answer) -> Ready:
        value = self.codec.decode_value(answer.ready)
        note: ReadyNote
        try:
            note = ready_note(value)
        except DECODE_FAILURES as error:
            raise RemoteProtocolError(f"ready is not valid: {reason(error)}") from error
        self._enter(State.OPEN)
        return Ready(note.functions)
