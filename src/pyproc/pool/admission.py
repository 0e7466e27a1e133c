"""What is decided of a call before it is accepted: how long it may take, and whether its body can be sent at all.

A call that finds an idle worker is encoded by that worker's connection and accepted with it. One that has to queue is
accepted when it joins the queue, and may be dropped later by its deadline, a cancel or the pool's end only. So its body is
encoded before it joins: what cannot be sent is refused at once, and what is sent is the body as it was then.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from msgspec import Raw

from pyproc.config.units import parse_time
from pyproc.errors import CallError, ConfigError, DeadlineExceeded, InternalError, InvalidArgument, PayloadTooLarge
from pyproc_wire.connection import MESSAGEPACK, Asking, measure_request, plain_request
from pyproc_wire.errors import LocalProtocolError, UnencodableValue

ENVELOPE_BYTES = 1 << 10  # more than stands around a body: ids, numbers, and a method of at most 128 characters
# RuntimeError: a map that another thread changes meanwhile
UNSENDABLE = (LocalProtocolError, ValueError, TypeError, OverflowError, RuntimeError)


class Span(NamedTuple):
    """How long a call may take, as the supervisor and as the worker counts it, the latter at least 1; and by how much its begin
    adds to the accepted calls: 0 for one that was accepted when it queued. `whole`: seconds, its time in the queue included."""

    seconds: float
    milliseconds: int
    new: int
    whole: float

    @classmethod
    def of(cls, seconds: float) -> Span:
        return cls(seconds, int(seconds * 1000) or 1, 1, seconds)

    def left(self, seconds: float) -> Span:
        """Of a call that has waited, what is left."""
        return Span(seconds, int(seconds * 1000) or 1, 0, self.whole)


def parse_timeout(timeout: object) -> float:
    """Seconds. Raises DeadlineExceeded for 0, InvalidArgument."""
    if timeout == 0:
        raise DeadlineExceeded("the deadline is 0 s: there is no time to call anything")
    try:
        return parse_time("timeout", timeout)
    except ConfigError as error:
        raise InvalidArgument(str(error)) from error


def parse_part_timeout(timeout: object) -> float:
    """Seconds that each part of a stream may take; without bound for None. Raises InvalidArgument."""
    if timeout is None:
        return math.inf
    try:
        return parse_time("part_timeout", timeout)
    except ConfigError as error:
        raise InvalidArgument(str(error)) from error


def parse_grace(grace: object) -> float:
    """Seconds, 0 too. Raises ConfigError."""
    return 0.0 if grace == 0 and not isinstance(grace, bool) else parse_time("grace", grace)


def request(id: int, method: str, body: Any, span: Span, limit: int) -> bytes:
    """The frame of a plain call of at most `limit` bytes, whichever worker it is for. Raises InvalidArgument, PayloadTooLarge."""
    try:
        return plain_request(MESSAGEPACK, id, method, body, span.milliseconds, limit)
    except UNSENDABLE as error:
        raise unsendable(error) from error


def seal(method: str, body: Any, span: Span, limit: int, *, stream: bool) -> Raw:
    """`body`, encoded, of a call whose request fits into `limit` bytes. Raises InvalidArgument, PayloadTooLarge."""
    try:
        sealed = body if type(body) is Raw else Raw(MESSAGEPACK.encode_value(body))
        if len(sealed) > limit - ENVELOPE_BYTES:
            measure_request(MESSAGEPACK, Asking(0, method, sealed, span.milliseconds, stream), limit)
    except UNSENDABLE as error:
        raise unsendable(error) from error
    return sealed


def unsendable(error: Exception) -> CallError:
    """What the caller is told of one of UNSENDABLE."""
    if isinstance(error, UnencodableValue):
        return InvalidArgument(f"body cannot be sent: {error}", path=error.path)
    if isinstance(error, LocalProtocolError) and error.code == "payload_too_large":
        return PayloadTooLarge(f"{error}; raise limits.request or send less")
    if isinstance(error, LocalProtocolError) and error.code == "internal":
        return InternalError(f"request cannot be sent: {error}")  # nothing that the body says
    return InvalidArgument(f"body cannot be sent: {error}")
