"""The worker's end of its channel: requests in, answers out; also the ground of `ServerConnection`.

The peer may be wrong in two ways. A message that can be told from the next one is refused alone:
`BadRequest`, to be answered with `failure`, and the connection goes on. Bytes that are no message end the
connection.

An answer that cannot be encoded or is too large raises and leaves the call open, so that a failure can be
sent in its place. A failure itself always fits: its texts are cut, never refused, because nothing could be
sent in its place.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NoReturn

import msgspec
from msgspec import Raw

from pyproc_wire.arena import NOWHERE, Receiver, Sender
from pyproc_wire.codec import MESSAGEPACK, Codec, Encoded, reason
from pyproc_wire.codes import WORKER_BOUNDS, WORKER_CODES
from pyproc_wire.connection_state import CALL, NO_ITEMS, NO_STREAM, PART, READY, SUCCESS, TO_WORKER, State, call_kind
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, printable
from pyproc_wire.events import BadRequest, Called, CancelRequested, ConnectionClosed, CreditGranted
from pyproc_wire.extensions import DECODE_FAILURES
from pyproc_wire.frame import BRIEF_HEADERS, FrameReader, frame, header
from pyproc_wire.limits import (
    CANCEL_REASON_BYTES,
    CREDIT_MAX,
    HEADER_BYTES,
    ID_MAX,
    PARTS_AHEAD,
    PUBLIC_TEXT_BYTES,
    REPORT_BYTES,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    TYPE_NAME_CHARS,
)
from pyproc_wire.messages import (
    BriefRequest,
    Cancellation,
    Control,
    Credit,
    ItemFailure,
    Items,
    LinkFailure,
    LinkRequest,
    PartNote,
    ReadyNote,
    Report,
    Success,
)
from pyproc_wire.texts import cut, cut_front, cut_path

WorkerEvent = LinkRequest | CancelRequested | CreditGranted | BadRequest | ConnectionClosed


class WorkerConnection:
    """A worker's channel, seen from inside. The limits bound payloads, in bytes. `sender` and `receiver` are of the arenas beside
    it; arrays arrive read-only with and without them."""

    _codes = WORKER_CODES
    _bounds = WORKER_BOUNDS

    def __init__(
        self,
        codec: Codec = MESSAGEPACK,
        request_limit: int = REQUEST_BYTES,
        response_limit: int = RESPONSE_BYTES,
        sender: Sender | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        self.codec = codec
        self._sender = NOWHERE if sender is None else sender
        self._prepare = codec.prepare if sender is None else codec.prepare_beside(sender)
        self._receiver = Receiver(_no_arena, request_limit, views=True) if receiver is None else receiver
        self._decode_any = codec.decoder_beside(self._receiver, Any)
        self.response_limit = response_limit
        self._reader = FrameReader(request_limit)
        self._decode = codec.decoder(LinkRequest)
        self._decode_brief = codec.decoder_beside(self._receiver, BriefRequest)
        self._open: dict[int, int] = {}  # id -> parts that may be sent, NO_STREAM for a plain call
        self._enter(State.NEW)

    def _enter(self, state: State) -> None:
        self._state = state
        self._hears = bool(TO_WORKER[state])
        self._watch_for_brief()

    def _watch_for_brief(self) -> None:
        """A brief request is told at a glance while no frame is under way."""
        self._brief_bytes = self.codec.brief_bytes if self._hears and not self._reader.mid_frame else 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def open_calls(self) -> Collection[int]:
        """The ids without a final answer, oldest first."""
        return self._open.keys()

    def window(self, id: int) -> int:
        """How many parts of the open stream `id` may be sent now; 0 for any other call."""
        return max(self._open.get(id, 0), 0)

    def value(self, raw: Encoded) -> Any:
        """The value of a body; a missing one is None. Its arrays are read-only, and lent until `settle`. Raises RemoteProtocolError if
        it is not within the limits, and what mapping the arena raises."""
        if not raw:
            return None
        self._receiver.begin(len(raw))
        return self.codec.decode_value(raw, self._decode_any)

    def settle(self) -> None:
        """The call is over: what is still held of its arrays becomes a copy."""
        self._receiver.settle()

    # What arrives.

    def brief(self, data: bytes) -> BriefRequest | None:
        """The event, if `data` is exactly one brief request. Else None, and nothing was taken in; `receive` says what it is."""
        size = len(data)
        if size >= self._brief_bytes or data[:HEADER_BYTES] != BRIEF_HEADERS[size]:
            return None
        try:
            request: BriefRequest = self._decode_brief(data[HEADER_BYTES:])
        except (*DECODE_FAILURES, LocalProtocolError):
            return None
        id, open = request.id, self._open
        if id in open or id > ID_MAX or request.batch:
            return None
        open[id] = PARTS_AHEAD if request.stream else NO_STREAM
        return request

    def receive(self, data: bytes) -> list[WorkerEvent]:
        """What `data` completes; `b""` says that the peer has ended.

        Raises RemoteProtocolError if the connection is over; its `before` holds the events before the breach.
        """
        if self._state is State.CLOSED:
            raise LocalProtocolError("connection is closed, nothing can be received")
        if not data:
            self._enter(State.CLOSED)
            return [ConnectionClosed(self._reader.mid_frame)]
        breach: RemoteProtocolError | None = None
        try:
            payloads = self._reader.feed(data)
        except RemoteProtocolError as error:
            payloads, breach = error.before, error
        events: list[WorkerEvent] = []
        try:
            for payload in payloads:
                if not self._hears:
                    raise RemoteProtocolError(f"nothing is permitted while the connection is {self._state.value}")
                event = self._event(payload)
                if event is not None:
                    events.append(event)
            if breach is not None:
                raise breach
        except RemoteProtocolError as error:
            self._enter(State.CLOSED)
            error.before = events
            raise
        self._watch_for_brief()
        return events

    def _event(self, payload: bytes | bytearray) -> WorkerEvent | None:
        try:
            request: LinkRequest = self._decode(payload)
        except DECODE_FAILURES as error:
            return self._other(payload, error)
        return self._called(request)

    def _called(self, request: LinkRequest) -> WorkerEvent:
        id = request.id
        if id in self._open:
            return refusal(None, f"id {id} is open already")
        if id > ID_MAX:
            return refusal(None, "id is outside 0 to 2^64-1")
        if request.batch and request.stream:
            self._open[id] = NO_STREAM
            return refusal(id, "a call is a stream or a batch and not both")
        self._open[id] = PARTS_AHEAD if request.stream else NO_ITEMS - request.batch if request.batch else NO_STREAM
        return request

    def _other(self, payload: bytes | bytearray | Raw, cause: Exception) -> WorkerEvent | None:
        """A control message, a bad message that is refused, or the end."""
        fields = self._fields(payload)
        if "type" in fields and "id" not in fields:
            try:
                control: Control = self.codec.decoder(Control)(payload)
                if control.type == "request":
                    return self._wrapped(control.payload)
                return self._control(control)
            except DECODE_FAILURES as error:
                return refusal(None, f"control message is not valid: {reason(error)}")
        return self._refused(fields, cause)

    def _fields(self, payload: bytes | bytearray | Raw) -> dict[str, Raw]:
        try:
            fields: dict[str, Raw] = self.codec.decoder(dict[str, Raw])(payload)
        except msgspec.ValidationError:
            # Not a map from text. What it is does not matter, but it must be whole for the connection to go
            # on.
            if not isinstance(self.codec.decode(payload), dict):
                raise RemoteProtocolError("payload is not a map") from None
            return {}
        except DECODE_FAILURES as error:
            raise RemoteProtocolError(f"payload is not valid {self.codec.name}: {reason(error)}") from error
        return fields

    def _wrapped(self, payload: Raw) -> WorkerEvent | None:
        try:
            request: LinkRequest = self._decode(payload)
        except DECODE_FAILURES as error:
            try:
                fields = self._fields(payload)
            except RemoteProtocolError:
                fields = {}
            return self._refused(fields, error)
        return self._called(request)

    def _refused(self, fields: dict[str, Raw], cause: Exception) -> BadRequest:
        id = self._id(fields)
        text = f"request is not valid: {reason(cause)}"
        if id is None or id in self._open:
            return refusal(None, text)
        self._open[id] = NO_STREAM
        return refusal(id, text)

    def _id(self, fields: dict[str, Raw]) -> int | None:
        try:
            id: int = self.codec.decoder(int)(fields["id"])
        except (KeyError, *DECODE_FAILURES):
            return None
        return id if 0 <= id <= ID_MAX else None

    def _control(self, control: Control) -> WorkerEvent | None:
        if control.type == "cancellation":
            cancellation: Cancellation = self.codec.decoder(Cancellation)(control.payload)
            text = cancellation.reason or ""
            if len(text.encode()) > CANCEL_REASON_BYTES:
                return refusal(None, f"reason of a cancellation is longer than {CANCEL_REASON_BYTES} bytes")
            return CancelRequested(cancellation.id, text) if cancellation.id in self._open else None
        if control.type == "credit":
            credit: Credit = self.codec.decoder(Credit)(control.payload)
            window = self._open.get(credit.id, NO_STREAM)
            if window < 0:
                return None
            self._open[credit.id] = min(window + credit.n, CREDIT_MAX)
            return CreditGranted(credit.id, credit.n)
        return refusal(None, f"message type {printable(control.type)!r} is unknown")

    # What is sent.

    def ready(self, functions: dict[str, Any]) -> bytes:
        """One frame that opens the connection: name -> description."""
        if self._state is not State.NEW:
            raise LocalProtocolError(f"connection is {self._state.value}, {READY} is sent once and first")
        prepared = self.codec.prepare({"functions": functions}, 0)
        note = ReadyNote(prepared["functions"])
        payload = self.codec.encode_prepared({"ready": note}, prepared, prepared)
        raw = self._bounded(payload, READY)
        self._enter(State.OPEN)
        return raw

    def success(self, id: int, value: object, output: int = 0) -> bytes:
        """One frame that ends call `id` with a value.

        Raises UnencodableValue, or LocalProtocolError with code `payload_too_large`; the call is open still.
        """
        if id not in self._open or not self._hears:
            self._may_answer(id, SUCCESS)
        codec, sender = self.codec, self._sender
        prepare = self._prepare if len(self._open) == 1 else codec.prepare  # beside another open call the arena may be in use
        try:
            prepared = prepare(value, 0)
            payload = codec.encode_prepared(Success(id, True, prepared, output), prepared, value)
            size = len(payload)
            if (size + sender.placed if sender.touched else size) > self.response_limit:
                self._refuse_size(size + sender.placed, SUCCESS)
        finally:
            if sender.touched:
                self._end_placing(sender)
        del self._open[id]
        return header(size) + payload

    def part(self, id: int, value: object) -> bytes:
        """One frame with a part of stream `id`. Raises as `success` does, and when `window(id)` is 0."""
        self._may_answer(id, PART)
        if self._open[id] <= 0:
            raise LocalProtocolError(f"no part of call {id} may be sent before a credit arrives")
        prepared = self.codec.prepare(value, 0)
        raw = self._bounded(self.codec.encode_prepared(PartNote(id, prepared), prepared, value), PART)
        self._open[id] -= 1
        return raw

    def items(self, id: int, results: list[Any], failure: Any = None) -> bytes:
        """One frame with the next results of batch `id`, or instead with the `failure` of its next item, which has the attributes of
        an ItemFailure. Raises as `success` does, for one result where `success` would; several may be too much together."""
        window, count = self._open.get(id, 0), len(results) or 1
        if window + count > NO_ITEMS or self._state is not State.OPEN:
            raise LocalProtocolError(f"{count} answers of call {id} cannot be sent, {max(0, NO_ITEMS - window)} items are left")
        items = Items()
        if failure is not None:
            self._may_fail(id, failure.code, failure.bound)
            items.failure = ItemFailure(cut(failure.error, PUBLIC_TEXT_BYTES), failure.code, cut_path(failure.path), failure.bound,
                                        failure.public, _cut_report(failure.report))
        else:
            raw = Raw(self.codec.encode_value(results[0] if count == 1 else results))
            size = len(self.codec.encode(Success(id, True, raw)))
            if size > self.response_limit:
                self._refuse_size(size, SUCCESS)
            items = Items(value=raw) if count == 1 else Items(results=raw)
        frame_of_it = frame(self.codec.encode(PartNote(id, items)))
        self._open[id] = window + count
        return frame_of_it

    def failure(
        self,
        id: int | None,
        code: str,
        error: str,
        *,
        path: str | None = None,
        bound: str | None = None,
        public: bool = False,
        report: Report | None = None,
        output: int = 0,
    ) -> bytes:
        """One frame that ends call `id` with an error; None refuses a message without a valid id, even
        after the end.

        `error` is cut at 4 KiB, `path` at 256 characters, the report's traceback at 64 KiB (its end is kept).
        """
        self._may_fail(id, code, bound)
        report = _cut_report(report)
        failure = LinkFailure(id, False, cut(error, PUBLIC_TEXT_BYTES), code, cut_path(path), bound, public, report, output)
        return self._closing(id, failure)

    def _may_answer(self, id: int, kind: str) -> None:
        call = call_kind(self._open.get(id))
        if kind not in CALL[call] or self._state is not State.OPEN:
            raise LocalProtocolError(f"connection is {self._state.value} and call {id} is {call}, {kind} cannot be sent")

    def _may_fail(self, id: int | None, code: str, bound: str | None) -> None:
        if code not in self._codes:
            raise LocalProtocolError(f"code {code!r} is not one that may be answered here")
        if bound is not None and bound not in self._bounds:
            raise LocalProtocolError(f"bound {bound!r} is not one that can be met here")
        if id is not None:
            self._may_answer(id, "failure")

    def _closing(self, id: int | None, failure: Any) -> bytes:
        raw = frame(self.codec.encode(failure))
        if self._sender.touched:
            self._end_placing(self._sender)
        if id is not None:
            del self._open[id]
        return raw

    def _end_placing(self, sender: Sender) -> None:
        """The answer is made: the next one is built in the same memory."""
        sender.end()
        sender.release()

    def _bounded(self, payload: bytes, kind: str) -> bytes:
        if len(payload) > self.response_limit:
            self._refuse_size(len(payload), kind)
        return frame(payload)

    def _refuse_size(self, size: int, kind: str) -> NoReturn:
        raise LocalProtocolError(f"{kind} is {size} bytes, limit is {self.response_limit}", code="payload_too_large")


def _cut_report(report: Report | None) -> Report | None:
    if report is None:
        return None
    return Report(cut(report.type, TYPE_NAME_CHARS), cut_front(report.traceback, REPORT_BYTES), report.refused)


def _no_arena() -> None:
    """Of who was offered none."""


def refusal(id: int | None, text: str) -> BadRequest:
    return BadRequest(id, "invalid_argument", text)


__all__ = ["Called", "WorkerConnection", "WorkerEvent"]
