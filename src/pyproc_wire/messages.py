"""The messages: maps on the wire, an unknown field is an error, an optional field that has its default is
not sent.

`body` and `part` are kept as the bytes they arrived in (`Raw`): whoever only passes a message on never
builds the value. An empty `Raw` stands for a field that was missing; no message on the wire can hold one.

What a worker sends is one flat `Answer`, decoded in one pass, because trying one struct after another would
cost more than the call. Which fields may stand together is in `connection_state`, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct

from pyproc_wire.limits import BATCH_ITEMS, CREDIT_MAX, DEADLINE_MS_MAX, ERRNO_MAX, OUTPUT_MAX

MISSING: Final = Raw(b"")
"""The body of a message that has none."""

CallId = Annotated[int, Meta(ge=0)]
"""An unsigned 64-bit integer; msgspec checks bounds up to 2^63 only, the rest is `connection`'s."""


class Request(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A call, as a client writes it (contract sections 7 and 10).

    `deadline_ms` is the time that is left, in milliseconds. null for an option is the same as leaving it out.
    """

    id: CallId
    method: str
    body: Raw = MISSING
    deadline_ms: Annotated[int, Meta(ge=0, le=DEADLINE_MS_MAX)] | None = None
    traceparent: str | None = None
    api_key: str | None = None
    jwt: str | None = None
    idempotency_key: str | None = None
    headers: dict[str, str] | None = None
    stream: bool = False


class LinkRequest(Request, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A call, as a supervisor sends it to its worker: who calls is known by then and told. With `batch` the body is a list, and at
    most so many of its items are called, each with the deadline."""

    tenant: str | None = None
    principal: str | None = None
    batch: Annotated[int, Meta(ge=0, le=BATCH_ITEMS)] = 0


class BriefRequest(LinkRequest, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A `LinkRequest` so short that its value was decoded with it; a missing one is None."""

    body: Any = None


class Asking(Struct, omit_defaults=True, gc=False):
    """Encoded only: a `LinkRequest` with those of its fields that a supervisor fills."""

    id: int
    method: str
    body: Any = MISSING
    deadline_ms: int | None = None
    stream: bool = False
    tenant: str | None = None
    principal: str | None = None
    batch: int = 0


class Control(Struct, forbid_unknown_fields=True, gc=False):
    """What has a type: `cancellation`, `credit`, and `request`, whose payload is a request."""

    type: str
    payload: Raw


class Cancellation(Struct, forbid_unknown_fields=True, gc=False):
    id: CallId
    reason: str | None = None


class Credit(Struct, forbid_unknown_fields=True, gc=False):
    """`n` more parts may be sent."""

    id: CallId
    n: Annotated[int, Meta(ge=1, le=CREDIT_MAX)]


class Refused(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What the kernel refused a function, as the worker says: `path` as it was asked for, `asked` the callable that asked.

    `asked` is "import" and `path` a module's name where that was not found.
    """

    errno: Annotated[int, Meta(ge=1, le=ERRNO_MAX)]
    path: str | None = None
    asked: str | None = None


class Report(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What went wrong, for the supervisor's log and never for the caller."""

    type: str
    traceback: str
    refused: Refused | None = None


class ReadyNote(Struct, forbid_unknown_fields=True, gc=False):
    functions: dict[str, Any]


class Answer(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Whatever a worker sends, decoded: ready, success, failure or part."""

    id: CallId | None = None
    ok: bool | None = None
    body: Raw = MISSING
    part: Raw = MISSING
    output: Annotated[int, Meta(ge=0, le=OUTPUT_MAX)] = 0
    error: str | None = None
    code: str | None = None
    path: str | None = None
    bound: str | None = None
    public: bool = False
    report: Report | None = None
    ready: Raw = MISSING


class Success(Struct, omit_defaults=True, gc=False):
    """Encoded only; `body` is the value itself, so that it is encoded once and in place."""

    id: int
    ok: bool
    body: Any
    output: int = 0


class PartNote(Struct, gc=False):
    """Encoded only."""

    id: int
    part: Any


class ItemFailure(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The failure of one item of a batch: what a `LinkFailure` says."""

    error: str
    code: str
    path: str | None = None
    bound: str | None = None
    public: bool = False
    report: Report | None = None


class Items(Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A part of a batch, one of: the `results` of its next items, the `value` of the next one, which may be too deep for a list, the
    `failure` of the next one."""

    results: Raw = MISSING
    value: Raw = MISSING
    failure: ItemFailure | None = None


class LinkFailure(Struct, omit_defaults=True, gc=False):
    """Encoded only: a failure as a worker tells its supervisor."""

    id: int | None
    ok: bool
    error: str
    code: str
    path: str | None = None
    bound: str | None = None
    public: bool = False
    report: Report | None = None
    output: int = 0


class PublicSuccess(Struct, omit_defaults=True, gc=False):
    """Encoded only."""

    id: int
    ok: bool
    body: Any
    call: str | None = None


class PublicFailure(Struct, omit_defaults=True, gc=False):
    """Encoded only: a failure as a client reads it."""

    id: int | None
    ok: bool
    error: str
    code: str
    error_id: str | None = None
    call: str | None = None
    path: str | None = None
    bound: str | None = None
    reason: str | None = None
    retry_after: float | None = None
    may_have_run: bool | None = None
