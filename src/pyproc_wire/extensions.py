"""MessagePack extension types for what MessagePack does not know: the numbers are part of the wire format.

Each type has one packer and one unpacker here, in fixed binary layouts with no text to parse but Decimal's.
An unpacker trusts nothing: a payload that the packer would not have written is refused. Nothing is looked
up by a name from the wire, so a time zone travels as its offset: an aware datetime keeps instant and
offset, and arrives with a fixed zone.

A container inside an extension is decoded by a decoder of its own, one for each level, so that nesting is
bounded by a table and not by the C stack.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from pyproc_wire import arrays
from pyproc_wire.arena import Receiver, Sender
from pyproc_wire.errors import UnencodableValue
from pyproc_wire.keys import SHORT_BYTES, check_keys, distinct
from pyproc_wire.limits import ARENA_VALUE_BYTES, MAX_DEPTH
from pyproc_wire.values import SCALARS, Walk, blame, carry_list, carry_scalar_map, too_deep

TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
MAPPING: Final = 4
DATE: Final = 5
DATETIME: Final = 6
TIME: Final = 7
TIMEDELTA: Final = 8
DECIMAL: Final = 9
UUID: Final = 10
COMPLEX: Final = 11
NUMPY_SCALAR: Final = 12
NUMPY_ARRAY: Final = 13
ARENA_BYTES: Final = 14
ARENA_ARRAY: Final = 15
"""References to what lies in an arena (`arena`); unknown to who was given none."""

_DATE: Final = struct.Struct(">HBB")
_CLOCK: Final = struct.Struct(">BBBIB")  # hour, minute, second, microsecond, fold
_OFFSET: Final = struct.Struct(">q")  # microseconds east of UTC
_DELTA: Final = struct.Struct(">iII")  # days, seconds, microseconds
_COMPLEX: Final = struct.Struct(">dd")
_REFERENCE: Final = struct.Struct(">QQ")  # offset, bytes
_MICROSECOND: Final = dt.timedelta(microseconds=1)

_encode: Final = Encoder().encode


def _pack_items(walk: Walk, items: list[Any] | tuple[Any, ...], depth: int) -> bytes:
    carried = carry_list(walk, items, depth)
    try:
        return _encode(carried)
    except (OverflowError, UnicodeEncodeError) as error:
        raise blame(carried, error) from error


def _carry_tuple(walk: Walk, value: tuple[Any, ...], depth: int) -> Ext:
    return Ext(TUPLE, _pack_items(walk, value, depth))


def _carry_set(walk: Walk, value: set[Any], depth: int) -> Ext:
    return Ext(SET, _pack_items(walk, list(value), depth))


def _carry_frozenset(walk: Walk, value: frozenset[Any], depth: int) -> Ext:
    return Ext(FROZENSET, _pack_items(walk, list(value), depth))


def _carry_map(walk: Walk, value: dict[Any, Any], depth: int) -> Any:
    """Keys that MessagePack knows stay keys; a map with any other key travels as its keys and values in
    turn."""
    if SCALARS.issuperset(map(type, value)):
        return carry_scalar_map(walk, value, depth)
    if depth >= MAX_DEPTH:
        raise too_deep(value)
    flat: list[Any] = []
    for key, item in value.items():
        try:
            flat += (walk.carry(key, depth + 1), walk.carry(item, depth + 1))
        except UnencodableValue as error:
            error.beneath(key)
            raise
    try:
        return Ext(MAPPING, _encode(flat))
    except (OverflowError, UnicodeEncodeError) as error:
        raise blame(dict(zip(value, flat[1::2], strict=True)), error) from error


def _pack_clock(value: dt.datetime | dt.time) -> bytes:
    packed = _CLOCK.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    if value.tzinfo is None:
        return packed
    offset = value.utcoffset()
    if offset is None:
        raise UnencodableValue(f"{type(value).__name__} has a zone without an offset", value)
    return packed + _OFFSET.pack(offset // _MICROSECOND)


def _carry_date(walk: Walk, value: dt.date, depth: int) -> Ext:
    return Ext(DATE, _DATE.pack(value.year, value.month, value.day))


def _carry_datetime(walk: Walk, value: dt.datetime, depth: int) -> Ext:
    return Ext(DATETIME, _DATE.pack(value.year, value.month, value.day) + _pack_clock(value))


def _carry_time(walk: Walk, value: dt.time, depth: int) -> Ext:
    return Ext(TIME, _pack_clock(value))


def _carry_timedelta(walk: Walk, value: dt.timedelta, depth: int) -> Ext:
    return Ext(TIMEDELTA, _DELTA.pack(value.days, value.seconds, value.microseconds))


def _carry_decimal(walk: Walk, value: decimal.Decimal, depth: int) -> Ext:
    return Ext(DECIMAL, str(value).encode("ascii"))


def _carry_uuid(walk: Walk, value: uuid.UUID, depth: int) -> Ext:
    return Ext(UUID, value.bytes)


def _carry_complex(walk: Walk, value: complex, depth: int) -> Ext:
    return Ext(COMPLEX, _COMPLEX.pack(value.real, value.imag))


def _carry_numpy(value: Any) -> Ext | None:
    packed = arrays.pack(value)
    return None if packed is None else Ext(NUMPY_ARRAY if packed.is_array else NUMPY_SCALAR, packed.payload)


CONVERTERS: Final[dict[type, Callable[[Walk, Any, int], Any]]] = {
    list: carry_list,
    dict: _carry_map,
    tuple: _carry_tuple,
    set: _carry_set,
    frozenset: _carry_frozenset,
    dt.date: _carry_date,
    dt.datetime: _carry_datetime,
    dt.time: _carry_time,
    dt.timedelta: _carry_timedelta,
    decimal.Decimal: _carry_decimal,
    uuid.UUID: _carry_uuid,
    complex: _carry_complex,
}

WALK: Final = Walk("MessagePack", SCALARS, SCALARS, CONVERTERS, _carry_numpy)


def walk_beside(sender: Sender) -> Walk:
    """As WALK, with large arrays and bytes put into the arena of `sender`."""

    def carry_bytes(walk: Walk, value: bytes, depth: int) -> Any:
        offset = sender.place_bytes(value) if len(value) >= ARENA_VALUE_BYTES else None
        return value if offset is None else Ext(ARENA_BYTES, _REFERENCE.pack(offset, len(value)))

    def carry_numpy(value: Any) -> Ext | None:
        payload = arrays.place(value, sender)
        return _carry_numpy(value) if payload is None else Ext(ARENA_ARRAY, payload)

    converters = {**CONVERTERS, bytes: carry_bytes}
    return Walk("MessagePack", SCALARS - {bytes}, SCALARS, converters, carry_numpy, ARENA_VALUE_BYTES)


def _time(payload: bytes) -> dt.time:
    hour, minute, second, microsecond, fold = _CLOCK.unpack(payload[: _CLOCK.size])
    rest = payload[_CLOCK.size :]
    zone = dt.timezone(_MICROSECOND * _OFFSET.unpack(rest)[0]) if rest else None
    return dt.time(hour, minute, second, microsecond, zone, fold=fold)


def _date(payload: bytes) -> dt.date:
    return dt.date(*_DATE.unpack(payload))


def _datetime(payload: bytes) -> dt.datetime:
    return dt.datetime.combine(_date(payload[: _DATE.size]), _time(payload[_DATE.size :]))


def _timedelta(payload: bytes) -> dt.timedelta:
    days, seconds, microseconds = _DELTA.unpack(payload)
    if seconds >= 86_400 or microseconds >= 1_000_000:
        raise ValueError("timedelta is not normalised")
    return dt.timedelta(days, seconds, microseconds)


def _decimal(payload: bytes) -> decimal.Decimal:
    text = payload.decode("ascii")
    value = decimal.Decimal(text)
    if str(value) != text:
        raise ValueError("decimal is not in its canonical form")
    return value


def _uuid(payload: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=payload)


def _complex(payload: bytes) -> complex:
    return complex(*_COMPLEX.unpack(payload))


def _mapping(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("mapping has a key without a value")
    values = items[1::2]
    built: dict[Any, Any] = distinct(items[::2], lambda keys: dict(zip(keys, values, strict=True)))
    return built


def _set(items: list[Any]) -> set[Any]:
    built: set[Any] = distinct(items, set)
    return built


def _frozenset(items: list[Any]) -> frozenset[Any]:
    built: frozenset[Any] = distinct(items, frozenset)
    return built


_FLAT: Final[dict[int, Callable[[bytes], Any]]] = {
    DATE: _date,
    DATETIME: _datetime,
    TIME: _time,
    TIMEDELTA: _timedelta,
    DECIMAL: _decimal,
    UUID: _uuid,
    COMPLEX: _complex,
}

_NESTED: Final[dict[int, Callable[[list[Any]], Any]]] = {
    TUPLE: tuple,
    SET: _set,
    FROZENSET: _frozenset,
    MAPPING: _mapping,
}

_ARRAYS: Final[dict[int, Callable[[memoryview], Any]]] = {
    NUMPY_SCALAR: arrays.unpack_scalar,
    NUMPY_ARRAY: arrays.unpack_array,
}


def _unpack_reference(code: int, payload: memoryview, receiver: Receiver) -> Any:
    if code == ARENA_ARRAY:
        return arrays.unpack_placed(payload, receiver)
    return bytes(receiver.take(*_REFERENCE.unpack(payload)))


def unpacker(level: int, receiver: Receiver | None = None) -> Callable[[int, memoryview], Any]:
    """The extension hook for values that already lie inside `level` extensions. References are for a `receiver`, which also says
    whether arrays are read-only."""
    inner: Decoder[list[Any]] | None = None

    def unpack(code: int, payload: memoryview) -> Any:
        nonlocal inner
        build = _NESTED.get(code)
        if build is not None:
            if inner is None:
                if level >= MAX_DEPTH:
                    raise ValueError(f"value is nested deeper than {MAX_DEPTH}")
                inner = Decoder(list[Any], ext_hook=unpacker(level + 1, receiver))
            if len(payload) > SHORT_BYTES:
                check_keys(bytes(payload))
            return build(inner.decode(payload))
        flat = _FLAT.get(code)
        if flat is not None:
            return flat(bytes(payload))
        if receiver is not None:
            if code in (ARENA_ARRAY, ARENA_BYTES):
                return _unpack_reference(code, payload, receiver)
            if receiver.views and code == NUMPY_ARRAY:
                return arrays.unpack_read_only(payload)
        array = _ARRAYS.get(code)
        if array is None:
            raise ValueError(f"extension type {code} is unknown")
        return array(payload)

    return unpack


DECODE_FAILURES: Final = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
"""What decoding a hostile payload may raise: format, ranges, unhashable keys, Decimal's signals, depth,
layouts."""
