"""The server's end of a client's connection: contract sections 7 and 10, spoken by a stand-alone worker.

    client                                   server
       |  -- first payload ------------------>  |   `{` chooses JSON, a MessagePack map MessagePack; anything
       |                                        |   else is answered in JSON and ends the connection
       |  -- request, cancellation, credit -->  |   as on a worker's channel, without tenant and principal
       |  <-- success, failure, part ---------  |   without ready; a failure has the public fields only

The client is unknown until its first payload, so the codec is too. Who the client is, is not this file's
business.
"""

from __future__ import annotations

from typing import Any

from pyproc_wire.codec import JSON, MESSAGEPACK, Codec
from pyproc_wire.codes import BOUNDS, CODES
from pyproc_wire.connection_state import SUCCESS, State
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.limits import PUBLIC_TEXT_BYTES, REQUEST_BYTES, RESPONSE_BYTES
from pyproc_wire.messages import LinkRequest, PublicFailure, PublicSuccess, Report
from pyproc_wire.texts import cut, cut_path
from pyproc_wire.worker_connection import WorkerConnection, WorkerEvent, refusal


def choose_codec(first: int) -> Codec | None:
    """The codec of a connection whose first payload begins with the byte `first`; None if it is neither."""
    if first == 0x7B:
        return JSON
    return MESSAGEPACK if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF) else None


class ServerConnection(WorkerConnection):
    """A client's connection. Given a `codec`, the first payload may be in that one only."""

    _codes = CODES
    _bounds = BOUNDS

    def __init__(
        self,
        codec: Codec | None = None,
        request_limit: int = REQUEST_BYTES,
        response_limit: int = RESPONSE_BYTES,
    ) -> None:
        super().__init__(JSON if codec is None else codec, request_limit, response_limit)
        self._only = codec
        self._chosen = False
        self._enter(State.OPEN)

    def brief(self, data: bytes) -> None:
        """None: what a client sends is looked at more closely, by `receive`."""

    def _event(self, payload: bytes | bytearray) -> WorkerEvent | None:
        if not self._chosen:
            self._choose(payload[0])
        if self.codec is JSON and not payload.isascii():
            # Bodies are passed over unread, so that text which is not UTF-8 would be found too late to be
            # refused.
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                raise RemoteProtocolError(f"payload is not valid json: {error.reason}") from error
        return super()._event(payload)

    def _choose(self, first: int) -> None:
        codec = choose_codec(first)
        if codec is None or self._only not in (None, codec):
            raise RemoteProtocolError("first payload is not a map in a codec that is spoken here")
        self._chosen = True
        self.codec = codec
        self._decode = codec.decoder(LinkRequest)
        self._decode_any = codec.decoder_beside(self._receiver, Any)

    def _called(self, request: LinkRequest) -> WorkerEvent:
        event = super()._called(request)
        if event is request and not (request.tenant is request.principal is None and not request.batch):
            # The id is open now: its failure closes it.
            return refusal(request.id, "request is not valid: tenant, principal and batch are not a client's to say")
        return event

    def ready(self, functions: object) -> bytes:
        raise LocalProtocolError("ready is not sent to clients")

    def success(self, id: int, value: object, output: int = 0, *, call: str | None = None) -> bytes:
        """As a worker's success; `output` is not told to clients, `call` is the audit record's id."""
        self._may_answer(id, SUCCESS)
        prepared = self.codec.prepare(value, 0)
        message = PublicSuccess(id, True, prepared, call)
        raw = self._bounded(self.codec.encode_prepared(message, prepared, value), SUCCESS)
        del self._open[id]
        return raw

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
        error_id: str | None = None,
        call: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
        may_have_run: bool | None = None,
    ) -> bytes:
        """As a worker's failure, in the client's form: `public`, `report` and `output` are not told to
        clients.

        Whether `error` may be shown is the caller's decision, made before.
        """
        self._may_fail(id, code, bound)
        text = cut(error, PUBLIC_TEXT_BYTES)
        failure = PublicFailure(
            id, False, text, code, error_id, call, cut_path(path), bound, reason, retry_after, may_have_run
        )
        return self._closing(id, failure)
