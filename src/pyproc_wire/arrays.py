"""numpy arrays and scalars as extension payloads: `[1: length of dtype][dtype][1: dimensions][8 each:
shape][bytes]`. Of an array in an arena `[8: offset]` stands in front and the bytes are left out.

numpy is imported only when a value needs it, by its fixed name. The dtype text is matched against a closed
pattern before numpy sees it, because numpy's own parser also reads field lists and object types; the shape
is checked against the number of bytes with Python integers before a view is made, because numpy's own
product can overflow.

An array arrives in C order, with the byte order it had: as a writable array of its own or, where views are lent,
as a read-only one, wherever its bytes lie. Refused: objects, structured types, and subclasses of ndarray (a
matrix, a masked array, a memory map), which would arrive as something else.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final, NamedTuple

from pyproc_wire.arena import Receiver, Sender
from pyproc_wire.errors import LocalProtocolError, UnencodableValue
from pyproc_wire.limits import ARENA_VALUE_BYTES

DIMENSIONS_MAX: Final = 32
"""Dimensions of an array: what every numpy version accepts."""

UNICODE_MAX: Final = 0x10FFFF
"""The largest code point; numpy fails with SystemError on reading a larger one."""

_DTYPE: Final = re.compile(
    r"\|b1|\|[iu]1|[<>](?:[iu][248]|f(?:2|4|8|16)|c(?:8|16|32))"
    r"|[<>][mM]8(?:\[[1-9]?[0-9]{0,8}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
    r"|\|S[1-9][0-9]{0,8}|[<>]U[1-9][0-9]{0,8}"
)

OFFSET_BYTES: Final = 8

_BYTES_SCALAR: Final = b"\x03|S0\x00"
_STR_SCALAR: Final = b"\x03|U0\x00"
"""Headers of numpy's bytes and str scalars, which are followed by the content: as an item of an array they
would lose trailing zeros."""


class Packed(NamedTuple):
    payload: bytes
    is_array: bool


def pack(value: Any) -> Packed | None:
    """The payload for a numpy array or scalar, None for anything else. Expects numpy to be loaded."""
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray):
        if type(value) is not numpy.ndarray:
            name = type(value).__name__
            raise UnencodableValue(f"{name} is a subclass of ndarray, convert it with numpy.asarray", value)
        return Packed(_pack(numpy, value, value), True)
    if isinstance(value, numpy.generic):
        if value.dtype.type is not type(value):
            raise UnencodableValue(f"{type(value).__name__} is a subclass of a numpy scalar, convert it", value)
        if isinstance(value, numpy.bytes_):
            return Packed(_BYTES_SCALAR + bytes(value), False)
        if isinstance(value, numpy.str_):
            return Packed(_STR_SCALAR + _utf8(value), False)
        return Packed(_pack(numpy, value, numpy.asarray(value)), False)
    return None


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise UnencodableValue("numpy str holds a lone surrogate and has no UTF-8 form", value) from error


def place(value: Any, sender: Sender) -> bytes | None:
    """The payload for an array that lies in the sender's arena now; None for another value, a small one, and without room."""
    numpy: Any = sys.modules["numpy"]
    if type(value) is not numpy.ndarray or value.nbytes < ARENA_VALUE_BYTES:
        return None
    header = _header(value, value)
    offset = sender.place(numpy, value)
    return None if offset is None else offset.to_bytes(OFFSET_BYTES, "big") + header


def _pack(numpy: Any, value: Any, array: Any) -> bytes:
    # A view as bytes, so that join makes the only copy; it exists for each carried dtype, a buffer export
    # does not.
    return b"".join((_header(value, array), numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)))


def _header(value: Any, array: Any) -> bytearray:
    dtype = array.dtype.str
    if _DTYPE.fullmatch(dtype) is None:
        raise UnencodableValue(f"numpy dtype {array.dtype} is not carried", value)
    if array.ndim > DIMENSIONS_MAX:
        raise UnencodableValue(f"array has {array.ndim} dimensions, limit is {DIMENSIONS_MAX}", value)
    header = bytearray((len(dtype),))
    header += dtype.encode("ascii")
    header.append(array.ndim)
    for length in array.shape:
        header += length.to_bytes(8, "big")
    return header


def _import_numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise LocalProtocolError(
            "a numpy value arrived and numpy is not importable here, install numpy or send lists"
        ) from error
    return numpy


def unpack_array(payload: memoryview) -> Any:
    """A new, writable array. Raises ValueError for a payload that `pack` would not have written."""
    numpy = _import_numpy()
    dtype, shape, content = _parse(numpy, payload)
    return _view(numpy, dtype, content).reshape(shape).copy()


def unpack_read_only(payload: memoryview) -> Any:
    """As `unpack_array`, and nobody writes to it."""
    array = unpack_array(payload)
    array.flags.writeable = False
    return array


def unpack_placed(payload: memoryview, receiver: Receiver) -> Any:
    """An array whose bytes lie in the receiver's arena. Raises ValueError as `unpack_array` does.

    Of two kinds not all bytes can be read safely. They are copied before they are looked at, as the peer may go on writing.
    """
    numpy = _import_numpy()
    dtype, shape, size, start = _parse_header(numpy, payload[OFFSET_BYTES:])
    if OFFSET_BYTES + start != len(payload):
        raise ValueError("numpy reference is followed by more")
    content = receiver.take(int.from_bytes(payload[:OFFSET_BYTES], "big"), size)
    if dtype.kind in "bU":
        array = _view(numpy, dtype, memoryview(bytes(content))).reshape(shape)
        return array if receiver.views else array.copy()
    array = numpy.frombuffer(content, dtype).reshape(shape)
    return array if receiver.views else array.copy()


def unpack_scalar(payload: memoryview) -> Any:
    """A numpy scalar. Raises ValueError as `unpack_array` does."""
    numpy = _import_numpy()
    head, rest = bytes(payload[: len(_STR_SCALAR)]), payload[len(_STR_SCALAR) :]
    if head == _BYTES_SCALAR:
        return numpy.bytes_(bytes(rest))
    if head == _STR_SCALAR:
        return numpy.str_(str(rest, "utf-8"))
    dtype, shape, content = _parse(numpy, payload)
    if shape:
        raise ValueError("numpy scalar has dimensions")
    return _view(numpy, dtype, content)[0]


def _parse(numpy: Any, payload: memoryview) -> tuple[Any, tuple[int, ...], memoryview]:
    dtype, shape, size, start = _parse_header(numpy, payload)
    if size != len(payload) - start:
        raise ValueError(f"numpy shape needs {size} bytes, there are {len(payload) - start}")
    return dtype, shape, payload[start:]


def _parse_header(numpy: Any, payload: memoryview) -> tuple[Any, tuple[int, ...], int, int]:
    """Dtype, shape, the bytes that both need, and where the header ends."""
    if not payload:
        raise ValueError("numpy value is empty")
    at = 1 + payload[0]
    text = str(payload[1:at], "ascii")
    if at >= len(payload) or _DTYPE.fullmatch(text) is None:
        raise ValueError("numpy dtype is not one that is carried")
    dimensions = payload[at]
    start = at + 1 + 8 * dimensions
    if dimensions > DIMENSIONS_MAX or start > len(payload):
        raise ValueError("numpy shape is not complete or has too many dimensions")
    shape = tuple(int.from_bytes(payload[i : i + 8], "big") for i in range(at + 1, start, 8))
    dtype = numpy.dtype(text)
    size: int = dtype.itemsize
    for length in shape:
        size *= length
    return dtype, shape, size, start


def _view(numpy: Any, dtype: Any, content: memoryview) -> Any:
    """A one-dimensional view whose every item can be read safely."""
    if dtype.kind == "b" and len(content) and numpy.frombuffer(content, "u1").max() > 1:
        raise ValueError("numpy bool is neither 0 nor 1")
    if dtype.kind == "U" and len(content):
        points = numpy.frombuffer(content, f"{dtype.byteorder if dtype.byteorder in '<>' else '='}u4")
        if points.max() > UNICODE_MAX:
            raise ValueError("numpy text holds a code point beyond Unicode")
    return numpy.frombuffer(content, dtype)
