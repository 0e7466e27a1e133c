"""User values: what is carried arrives as what it was, what is not is refused with its place and a remedy."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import sys
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import msgspec
import numpy
import pytest
from msgspec.msgpack import Ext

from pyproc_wire import codec as codec_module
from pyproc_wire import extensions, json_values, keys
from pyproc_wire.codec import JSON, MESSAGEPACK, Codec, check_shape
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue
from pyproc_wire.limits import MAX_CONTAINERS, MAX_DEPTH, MAX_KEYS


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    pass


class Row(msgspec.Struct, rename="camel"):
    row_id: int
    left_out: int | msgspec.UnsetType = msgspec.UNSET


class Tagged(msgspec.Struct, tag="circle", tag_field="kind"):
    radius: float


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Grid(numpy.ndarray[Any, Any]):
    pass


Pair = namedtuple("Pair", "a b")


def back(value: Any, codec: Codec = MESSAGEPACK) -> Any:
    return codec.decode_value(codec.encode_value(value))


def refused(value: Any, codec: Codec = MESSAGEPACK) -> UnencodableValue:
    with pytest.raises(UnencodableValue) as error:
        codec.encode_value(value)
    assert str(error.value).endswith(f" at {error.value.path}")
    return error.value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**63),
        2**64 - 1,
        "täxt\x00",
        b"\xff",
        (1, (2, [3])),
        {1, 2},
        frozenset({"a"}),
        {1: "int", "1": "text", None: 0, b"k": 1, 2.5: 2},
        {(1, 2): "pair", dt.date(2024, 2, 29): "day"},
        dt.datetime(2024, 10, 27, 2, 30, 5, 7, fold=1),
        dt.time(23, 59, 59, 999_999),
        dt.timedelta(days=-1, microseconds=1),
        dt.timedelta.min,
        decimal.Decimal("1.00"),
        decimal.Decimal("-Infinity"),
        decimal.Decimal("1E+999999"),
        uuid.UUID(int=7),
        complex(1, -0.0),
    ],
    ids=repr,
)
def test_each_value_arrives_as_what_it_was(value: Any) -> None:
    got = back({"deep": [value]})["deep"][0]
    assert type(got) is type(value)
    assert repr(got) == repr(value)


def test_a_plain_value_is_not_copied_before_it_is_encoded() -> None:
    value = {"rows": 1, "name": "x", "raw": b"y"}
    assert MESSAGEPACK.prepare(value, 0) is value


def test_an_aware_datetime_keeps_its_instant_and_its_offset() -> None:
    berlin = dt.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1)
    got = back(berlin)
    assert got == dt.datetime(2024, 10, 27, 1, 30, tzinfo=dt.UTC)
    assert got.utcoffset() == berlin.utcoffset()
    assert back(dt.datetime(2024, 1, 1, tzinfo=dt.UTC)).tzinfo is dt.UTC


def test_the_standard_timestamp_of_messagepack_is_understood() -> None:
    assert MESSAGEPACK.decode_value(b"\xd6\xff\x00\x00\x00\x01") == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)


def test_structs_and_dataclasses_become_maps_of_their_fields() -> None:
    assert back(Row(1)) == {"rowId": 1}
    assert back(Tagged(2.0)) == {"kind": "circle", "radius": 2.0}
    assert back([Point(1, (2, 3))]) == [{"x": 1, "y": (2, 3)}]
    assert msgspec.convert(back(Tagged(2.0)), Tagged) == Tagged(2.0)


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        (object(), "$", "object is not carried"),
        ({"a": [1, 2, object()]}, "$.a[2]", "object is not carried"),
        ({"a b": {"c": object()}}, '$["a b"].c', "object"),
        ({7: {None: object()}}, '$["7"]["None"]', "object"),
        ((1, (object(),)), "$[1][0]", "object"),
        ({"when": Colour.RED}, "$.when", "pass its .value"),
        ([Level.LOW], "$[0]", "pass its .value"),
        ([Name("x")], "$[0]", "subclass of str"),
        (Pair(1, 2), "$", "subclass of tuple"),
        (OrderedDict(a=1), "$", "subclass of dict"),
        ([defaultdict(int)], "$[0]", "subclass of dict"),
        (bytearray(b"x"), "$", "convert it to bytes"),
        (len, "$", "builtin_function_or_method"),
        (Point, "$", "type is not carried"),
        (Point(1, {2: object()}), '$.y["2"]', "object"),
        ([2**64], "$[0]", "int is outside"),
        ({"k": -(2**63) - 1}, "$.k", "int is outside"),
        ((0, 2**64), "$[1]", "int is outside"),
        ({"k": "\ud800"}, "$.k", "lone surrogate"),
        ({"\ud800": 1}, '$["\\ud800"]', "lone surrogate"),
        ({(1,): 2**64}, '$["tuple"]', "int is outside"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_its_place(value: Any, path: str, text: str) -> None:
    error = refused(value)
    assert error.path == path
    assert text in str(error)
    assert error.type_name


def test_a_path_is_cut_at_256_characters() -> None:
    assert len(refused({"k" * 300: object()}).path) == 256


def test_a_cycle_is_refused_as_too_deep() -> None:
    inner: dict[str, Any] = {}
    inner["self"] = (inner,)
    assert "deeper than 64" in str(refused(inner))


@pytest.mark.parametrize("item", [{}, {"key": 1}, []])
def test_a_level_of_many_items_counts_as_one_of_a_single_item(item: Any) -> None:
    value: Any = [item, item]
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    assert back(value) == value
    assert "deeper than 64" in str(refused([value]))


def test_too_many_keys_are_refused_before_they_are_sent() -> None:
    assert "keys" in str(refused({str(number): 0 for number in range(MAX_KEYS + 1)}))
    assert len(back({str(number): 0 for number in range(MAX_KEYS)})) == MAX_KEYS


@pytest.mark.parametrize("codec", [MESSAGEPACK, JSON], ids=str)
def test_too_many_keys_are_refused_when_they_arrive(codec: Codec) -> None:
    maker = msgspec.msgpack if codec is MESSAGEPACK else msgspec.json
    raw = maker.encode({str(number): 0 for number in range(MAX_KEYS + 1)})
    with pytest.raises(RemoteProtocolError, match="more than 100000 keys"):
        codec.decode_value(raw)


def listed(item: bytes, count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


FEW = 10_000
CROWDS = {
    "lists": (MESSAGEPACK, listed(b"\x90", FEW)),
    "maps": (MESSAGEPACK, listed(b"\x80", FEW)),
    "tuples": (MESSAGEPACK, listed(b"\xd4\x01\x90", FEW)),
    "in a tuple": (MESSAGEPACK, b"\xc9" + (FEW + 5).to_bytes(4, "big") + b"\x01" + listed(b"\x90", FEW)),
    "in tuples": (MESSAGEPACK, listed(b"\xc9" + (1005).to_bytes(4, "big") + b"\x01" + listed(b"\x90", 1000), FEW // 1000)),
    "json": (JSON, b"[" + b"[]," * (FEW - 1) + b"{}]"),
}


@pytest.fixture
def few_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a million, which takes a second to reach, at FEW."""
    for module in (codec_module, keys, json_values):
        monkeypatch.setattr(module, "MAX_CONTAINERS", FEW)


@pytest.mark.usefixtures("few_containers")
@pytest.mark.parametrize("crowd", CROWDS)
def test_a_crowd_of_containers_is_refused_before_it_is_built(crowd: str) -> None:
    """An empty list is a byte on the wire and 64 in memory."""
    codec, raw = CROWDS[crowd]
    with pytest.raises(RemoteProtocolError, match="more than 10000 lists and maps"):
        codec.decode_value(raw)


@pytest.mark.usefixtures("few_containers")
def test_as_many_containers_as_are_allowed_pass_and_what_only_looks_like_them_does() -> None:
    assert len(MESSAGEPACK.decode_value(listed(b"\x90", FEW - 1))) == FEW - 1
    assert len(MESSAGEPACK.decode_value(listed(b"\xa1\x00", FEW + 1))) == FEW + 1
    blob = b"\x90" * (FEW + 1)
    assert back((blob, [blob])) == (blob, [blob])
    text = '[{"\\' * FEW
    assert JSON.decode_value(JSON.encode_value([text, {text: 1}])) == [text, {text: 1}]


@pytest.mark.parametrize("codec", [MESSAGEPACK, JSON], ids=str)
def test_a_crowd_of_containers_is_refused_before_it_is_sent(codec: Codec) -> None:
    with pytest.raises(UnencodableValue, match=f"more than {MAX_CONTAINERS} lists and maps"):
        codec.encode_value([[]] * MAX_CONTAINERS)


@pytest.mark.parametrize("codec", [MESSAGEPACK, JSON], ids=str)
def test_depth_is_judged_when_a_value_arrives(codec: Codec) -> None:
    opening, closing = (b"\x91", b"") if codec is MESSAGEPACK else (b"[", b"]")
    inner = b"\x00" if codec is MESSAGEPACK else b"0"
    assert codec.decode_value(opening * 64 + inner + closing * 64)
    for depth in (65, 200, 100_000):
        with pytest.raises(RemoteProtocolError):
            codec.decode_value(opening * depth + inner + closing * depth)


def test_extensions_inside_one_another_are_bounded() -> None:
    raw = b"\x90"
    for _ in range(300):
        raw = msgspec.msgpack.encode([Ext(extensions.TUPLE, raw)])
    with pytest.raises(RemoteProtocolError, match="deeper than 64"):
        MESSAGEPACK.decode_value(raw)


def test_check_shape_counts_the_keys_of_all_maps_together() -> None:
    half = dict.fromkeys(range(MAX_KEYS // 2))
    check_shape([half, (half,)])
    with pytest.raises(RemoteProtocolError, match="keys"):
        check_shape([half, (half,), {"one": 1}])


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (0, b""),
        (99, b""),
        (extensions.TUPLE, b"\x80"),
        (extensions.TUPLE, b"\x90\x90"),
        (extensions.SET, b"\x91\x90"),
        (extensions.SET, b"\x91\x80"),
        (extensions.MAPPING, b"\x91\x01"),
        (extensions.MAPPING, b"\x92\x90\x01"),
        (extensions.DATE, b"\x07\xe8\x02\x1e"),
        (extensions.DATE, b"\x07\xe8"),
        (extensions.TIME, b"\x18\x00\x00\x00\x00\x00\x00\x00"),
        (extensions.TIME, b"\x00\x00\x00\x00\x00\x00\x00\x02"),
        (extensions.TIME, b"\x00" * 8 + b"\x7f" * 8),
        (extensions.DATETIME, b"\x07\xe8\x02\x1d"),
        (extensions.TIMEDELTA, b"\x7f\xff\xff\xff" + b"\x00" * 8),
        (extensions.TIMEDELTA, b"\x00" * 4 + b"\xff" * 8),
        (extensions.DECIMAL, b"1_0"),
        (extensions.DECIMAL, b" 1"),
        (extensions.DECIMAL, b"nope"),
        (extensions.DECIMAL, "٣".encode()),
        (extensions.UUID, b"short"),
        (extensions.COMPLEX, b"\x00" * 15),
        (extensions.NUMPY_ARRAY, b""),
        (extensions.NUMPY_ARRAY, b"\x03|O8\x00" + b"\x00" * 8),
        (extensions.NUMPY_ARRAY, b"\x05i4,f8\x00" + b"\x00" * 12),
        (extensions.NUMPY_ARRAY, b"\x03|V8\x00" + b"\x00" * 8),
        (extensions.NUMPY_ARRAY, b"\x03<i4\x01" + b"\x00" * 7 + b"\x02" + b"\x00" * 4),
        (extensions.NUMPY_ARRAY, b"\x03<i4\x02" + b"\xff" * 16),
        (extensions.NUMPY_ARRAY, b"\x03<i4\x02" + b"\x00" * 8 + b"\xff" * 8),
        (extensions.NUMPY_ARRAY, b"\x03<i4\x21"),
        (extensions.NUMPY_ARRAY, b"\x03|b1\x00\x02"),
        (extensions.NUMPY_ARRAY, b"\x03<U1\x00\xff\xff\xff\xff"),
        (extensions.NUMPY_ARRAY, b"\x03>U1\x00\xff\x00\x00\x00"),
        (extensions.NUMPY_SCALAR, b"\x03<i4\x01" + b"\x00" * 7 + b"\x01" + b"\x00" * 4),
        (extensions.NUMPY_SCALAR, b"\x03|U0\x00\xff"),
    ],
)
def test_a_forged_extension_blames_the_peer(code: int, payload: bytes) -> None:
    raw = msgspec.msgpack.encode({"k": Ext(code, payload)})
    with pytest.raises(RemoteProtocolError, match="value is not valid msgpack"):
        MESSAGEPACK.decode_value(raw)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12, dtype=">i2").reshape(3, 4)[::-1, ::2],
        numpy.asfortranarray(numpy.ones((2, 3))),
        numpy.array(5.0),
        numpy.zeros((0, 3)),
        numpy.array([True, False]),
        numpy.array(["a", "ß\U0010ffff"]),
        numpy.array([b"a\x00b", b""]),
        numpy.array(["2024-01-01", "NaT"], dtype="M8[25s]"),
        numpy.array([1], dtype="m8"),
        numpy.array([1 + 2j], dtype="c16"),
        numpy.array([1.5], dtype="f2"),
        numpy.array([1.5], dtype="g"),
    ],
    ids=lambda array: str(array.dtype.str),
)
def test_an_array_arrives_with_dtype_shape_and_content(array: Any) -> None:
    got = back({"a": array})["a"]
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert got.flags.writeable
    assert got.flags.owndata


@pytest.mark.parametrize(
    "scalar",
    [
        numpy.float64(1.5),
        numpy.int8(-1),
        numpy.bool_(True),
        numpy.str_("a\x00"),
        numpy.str_(""),
        numpy.bytes_(b"a\x00"),
        numpy.bytes_(b""),
        numpy.datetime64("2024-01-01", "ns"),
        numpy.complex64(1j),
    ],
    ids=lambda scalar: type(scalar).__name__,
)
def test_a_numpy_scalar_arrives_with_its_type_and_is_no_python_number(scalar: Any) -> None:
    got = back([scalar])[0]
    assert type(got) is type(scalar)
    assert got == scalar
    assert (got.dtype, repr(got)) == (scalar.dtype, repr(scalar))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (numpy.array([object()]), "dtype object is not carried"),
        (numpy.zeros(1, dtype=[("a", "i4")]), "is not carried"),
        (numpy.zeros(1, dtype=[("a", "i4")])[0], "is not carried"),
        (numpy.zeros(1).view(Grid), "numpy.asarray"),
        (numpy.ma.masked_array([1], [True]), "numpy.asarray"),
        (numpy.zeros((1,) * 33), "33 dimensions"),
        (numpy.str_("\ud800"), "lone surrogate"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_numpy_values_are_refused_with_their_place(value: Any, text: str) -> None:
    error = refused({"a": value})
    assert error.path == "$.a"
    assert text in str(error)


def test_a_numpy_value_where_numpy_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = MESSAGEPACK.encode_value(numpy.zeros(2))
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(LocalProtocolError, match="install numpy"):
        MESSAGEPACK.decode_value(raw)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), b"[1,2]"),
        ([1.5, 2.0], b"[1.5,2.0]"),
        (dt.date(2024, 2, 29), b'"2024-02-29"'),
        (dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.UTC), b'"2024-02-29T01:02:03Z"'),
        (dt.time(1, 2, 3), b'"01:02:03"'),
        (dt.timedelta(days=1, seconds=2), b'"P1DT2S"'),
        (decimal.Decimal("1.00"), b'"1.00"'),
        (uuid.UUID(int=7), b'"00000000-0000-0000-0000-000000000007"'),
        (Point(1), b'{"x":1,"y":null}'),
    ],
)
def test_json_says_what_the_reference_says(value: Any, text: bytes) -> None:
    assert JSON.encode_value([value]) == b"[" + text + b"]"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1.0, float("nan")], "$[1]"),
        ({"k": float("inf")}, "$.k"),
        ({"k": b"x"}, "$.k"),
        ([{1}], "$[0]"),
        ([frozenset()], "$[0]"),
        ({"k": 1j}, "$.k"),
        ({"k": {1: 2}}, '$.k["1"]'),
        ([numpy.float64(1)], "$[0]"),
        ([numpy.zeros(1)], "$[0]"),
        ([2**64], "$[0]"),
        ({"k": [-(2**63) - 1]}, "$.k[0]"),
        ({"k": 10**30}, "$.k"),
        (["\ud800"], "$[0]"),
        ([Colour.RED], "$[0]"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value: Any, path: str) -> None:
    assert refused(value, JSON).path == path


@pytest.mark.parametrize("number", [-(2**63), 2**64 - 1])
def test_json_carries_the_integers_of_messagepack(number: int) -> None:
    assert back({"k": [number]}, JSON) == {"k": [number]}
    assert back(number, JSON) == number


@pytest.mark.parametrize("raw", [b"18446744073709551616", b'{"k":[-9223372036854775809]}', b"[1" + b"0" * 400 + b"]"])
def test_json_integers_beyond_64_bits_are_refused_when_they_arrive(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="integer outside"):
        JSON.decode_value(raw)


@pytest.mark.parametrize("raw", [b"", b"NaN", b"1 2", b'"\xff"', b'"\\ud800"', b"{", b"[1,]", b"1e999", b"01", b"{1:2}"])
def test_bad_json_blames_the_peer(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        JSON.decode_value(raw)


def test_an_error_text_never_carries_control_characters_of_the_peer() -> None:
    class Closed(msgspec.Struct, forbid_unknown_fields=True):
        a: int = 0

    with pytest.raises(RemoteProtocolError) as error:
        MESSAGEPACK.decode(msgspec.msgpack.encode({"\n\x1b[31m" + "x" * 1000: 1}), Closed)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
