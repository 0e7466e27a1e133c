"""User values in JSON: what JSON can say is said, what it cannot is refused with its place.

Documented changes, all of them: a tuple becomes an array (JSON has one kind of sequence); date, time,
datetime and timedelta become ISO 8601 text, UUID and Decimal their text. Refused, because the receiver
could not tell them from something else: bytes, sets, complex, numpy values, NaN and the infinities (msgspec
would write null), keys that are not text (msgspec would write "1" for 1), integers outside -2^63 to 2^64-1
(msgspec would write them).
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pyproc_wire.errors import UnencodableValue
from pyproc_wire.limits import MAX_CONTAINERS
from pyproc_wire.values import TEXT, Walk, carry_list, carry_scalar_map

PLAIN: Final[frozenset[type]] = frozenset({type(None), bool, int, str})
"""What JSON carries unseen; a float has to be looked at."""

_FLOAT: Final[frozenset[type]] = frozenset({float})

_DIGITS: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0 for byte in range(256))
_LONG: Final = b"0" * 19
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)  # possessive: no text makes it go back


def may_hold_long_int(raw: bytes | bytearray) -> bool:
    """Whether there are 19 digits in a row, without which no integer leaves the range of 64 bits."""
    return len(raw) >= len(_LONG) and _LONG in raw.translate(_DIGITS)


def check_containers(raw: bytes) -> None:
    """Raise ValueError if `raw`, JSON, holds more than MAX_CONTAINERS lists and maps."""
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        outside = _TEXT.sub(b"", raw)
        if outside.count(b"[") + outside.count(b"{") > MAX_CONTAINERS:
            raise ValueError(f"value has more than {MAX_CONTAINERS} lists and maps")


def _carry_float(walk: Walk, value: float, depth: int) -> float:
    if not math.isfinite(value):
        raise UnencodableValue(f"{value} is not carried by JSON, send null or text", value)
    return value


def _carry_items(walk: Walk, value: list[Any] | tuple[Any, ...], depth: int) -> Any:
    if _FLOAT.issuperset(map(type, value)) and all(map(math.isfinite, value)):
        return value
    return carry_list(walk, value, depth)


def _carry_map(walk: Walk, value: dict[Any, Any], depth: int) -> Any:
    if not TEXT.issuperset(map(type, value)):
        for key in value:
            if type(key) is not str:
                error = UnencodableValue(f"{type(key).__name__} is not a key in JSON, keys are str", key)
                error.beneath(key)
                raise error
    return carry_scalar_map(walk, value, depth)


def _carry_as_text(walk: Walk, value: Any, depth: int) -> Any:
    return msgspec.to_builtins(value)


def _refuse(remedy: str) -> Callable[[Walk, Any, int], Any]:
    def refuse(walk: Walk, value: Any, depth: int) -> Any:
        raise UnencodableValue(f"{type(value).__name__} is not carried by JSON, {remedy}", value)

    return refuse


def _refuse_numpy(value: Any) -> Any:
    import numpy  # loaded already, or there would be no numpy value

    if isinstance(value, numpy.ndarray | numpy.generic):
        raise UnencodableValue(f"numpy {type(value).__name__} is not carried by JSON, use .tolist()", value)
    return None


WALK: Final = Walk(
    "JSON",
    PLAIN,
    TEXT,
    {
        float: _carry_float,
        list: _carry_items,
        tuple: _carry_items,
        dict: _carry_map,
        dt.date: _carry_as_text,
        dt.datetime: _carry_as_text,
        dt.time: _carry_as_text,
        dt.timedelta: _carry_as_text,
        decimal.Decimal: _carry_as_text,
        uuid.UUID: _carry_as_text,
        bytes: _refuse("send base64 text"),
        set: _refuse("send a sorted list"),
        frozenset: _refuse("send a sorted list"),
        complex: _refuse("send a list of two numbers"),
    },
    _refuse_numpy,
)
