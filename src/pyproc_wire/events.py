"""What a connection tells its owner: one small frozen object for each thing that happened, in the order it
happened.

Bodies are `Raw`: bytes in the connection's codec, turned into a value by the connection's `value`. But for the brief ones,
which exist because a tiny call is decoded in one pass at half the price of two.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct

from pyproc_wire.errors import LocalProtocolError
from pyproc_wire.limits import OUTPUT_MAX
from pyproc_wire.messages import CallId, LinkRequest, Report

Called: Final = LinkRequest
"""A request arrived. The decoded message is the event: a second object would only copy it."""


class Ready(Struct, frozen=True, gc=False):
    """The worker can be called: what it exposes. Hostile input."""

    functions: dict[str, Any]


class Succeeded(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The end of call `id`; `output` counts the bytes that it wrote to its standard streams. `ok` is True: a plain
    success is decoded as the event that it is."""

    id: CallId
    ok: bool
    body: Raw
    output: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] = 0


class BriefSuccess(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A `Succeeded` so short that its value was decoded with it."""

    id: CallId
    ok: bool
    body: Any
    output: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] = 0


class Failed(Struct, frozen=True, gc=False):
    """The end of call `id`. `error` may be shown to the caller if `public`; `report` is for the log only."""

    id: int
    code: str
    error: str
    path: str | None
    bound: str | None
    public: bool
    report: Report | None
    output: int


class Part(Struct, frozen=True, gc=False):
    """One part of the stream that answers call `id`."""

    id: int
    body: Raw


class Answered(Struct, frozen=True, gc=False):
    """The next items of batch `id`: their `values`, or the `failure` of one. A LocalProtocolError where a value cannot be had here."""

    id: int
    values: list[Any]
    failure: Failed | LocalProtocolError | None


class CancelRequested(Struct, frozen=True, gc=False):
    """The caller gave up on the open call `id`."""

    id: int
    reason: str


class CreditGranted(Struct, frozen=True, gc=False):
    """`n` more parts may be sent for the open stream `id`; the connection has added them already."""

    id: int
    n: int


class BadRequest(Struct, frozen=True, gc=False):
    """A message that is refused while the connection goes on: answer it with `failure(id, code, error)`."""

    id: int | None
    code: str
    error: str


class ConnectionClosed(Struct, frozen=True, gc=False):
    """The peer will send no more; `mid_frame` if it stopped within a message."""

    mid_frame: bool
