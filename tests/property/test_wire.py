"""Properties of the wire: garbage parses or blames the peer, a carried value arrives as what it was."""

from __future__ import annotations

import datetime as dt
import importlib.util
import itertools
import math
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from pyproc_wire.codec import JSON, MESSAGEPACK, Codec
from pyproc_wire.connection import CallerConnection, ServerConnection
from pyproc_wire.errors import RemoteProtocolError, UnencodableValue
from pyproc_wire.frame import FrameReader, frame
from pyproc_wire.keys import check_keys

PLAY = Path(__file__).parent.parent / "vectors" / "wire_play.py"
_spec = importlib.util.spec_from_file_location("wire_play", PLAY)
assert _spec is not None and _spec.loader is not None
play = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(play)

EXAMPLES = settings().max_examples  # 100, or fewer: see conftest.py
VECTORS = play.expectations("valid") + play.expectations("invalid")

INTS = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ZONES = st.none() | st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone)
KEYS = st.one_of(st.none(), st.booleans(), INTS, st.floats(allow_nan=False), TEXT, st.binary(), st.dates(), st.uuids())
SCALARS = st.one_of(
    KEYS,
    st.floats(),
    st.datetimes(timezones=ZONES),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.decimals(allow_nan=True),
    st.complex_numbers(allow_nan=False),
)
HASHABLE = st.recursive(KEYS, lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=4), max_leaves=6)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXT, inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=20,
)
DTYPES = st.one_of(
    numpy_st.boolean_dtypes(),
    numpy_st.integer_dtypes(endianness="?"),
    numpy_st.unsigned_integer_dtypes(endianness="?"),
    numpy_st.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    numpy_st.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    numpy_st.datetime64_dtypes(endianness="?"),
    numpy_st.timedelta64_dtypes(endianness="?"),
    numpy_st.byte_string_dtypes(min_len=1, max_len=8),
    numpy_st.unicode_string_dtypes(endianness="?", min_len=1, max_len=8),
)
ARRAYS = DTYPES.flatmap(lambda dtype: numpy_st.arrays(dtype, numpy_st.array_shapes(min_dims=0, min_side=0, max_side=4)))


def same(sent: Any, got: Any) -> bool:
    """Equal in type and value all the way down; NaN equals NaN, and 0.0 is not -0.0."""
    if type(sent) is not type(got):
        return False
    if isinstance(sent, float):
        return struct.pack(">d", sent) == struct.pack(">d", got) or (math.isnan(sent) and math.isnan(got))
    if isinstance(sent, list | tuple):
        return len(sent) == len(got) and all(map(same, sent, got))
    if isinstance(sent, dict):
        return len(sent) == len(got) and all(
            same(mine, theirs) and same(sent[mine], got[theirs]) for mine, theirs in zip(sent, got, strict=True)
        )
    if isinstance(sent, set | frozenset):
        return sent == got and sorted(map(repr, map(type, sent))) == sorted(map(repr, map(type, got)))
    if isinstance(sent, dt.datetime | dt.time):
        zones = sent.tzinfo is None, got.tzinfo is None
        return zones[0] == zones[1] and sent.isoformat() == got.isoformat() and sent.fold == got.fold
    if hasattr(sent, "is_signed"):
        return str(sent) == str(got)  # Decimal: 1.0 is not 1.00, and NaN is not equal to itself
    return bool(sent == got)


@given(VALUES)
@example({(1, 2): [], "a": {1: ()}})
@example([dt.datetime(2024, 10, 27, 2, 30, fold=1)])
@example([[-0.0, math.nan, math.inf]])
@settings(deadline=None)
def test_each_value_arrives_as_what_it_was(value: Any) -> None:
    assert same(value, MESSAGEPACK.decode_value(MESSAGEPACK.encode_value(value)))


@given(ARRAYS)
@settings(deadline=None)
def test_each_array_arrives_with_its_dtype_shape_and_bytes(array: Any) -> None:
    got = MESSAGEPACK.decode_value(MESSAGEPACK.encode_value({"a": array}))["a"]
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert got.tobytes() == array.tobytes()
    assert got.flags.writeable


@given(ARRAYS.filter(lambda array: array.size > 0))
@example(numpy.array("\ud800"))
@settings(deadline=None)
def test_each_numpy_scalar_arrives_with_its_type(array: Any) -> None:
    scalar = array.flat[0]
    assert isinstance(scalar, numpy.generic)
    if isinstance(scalar, str) and any("\ud800" <= char <= "\udfff" for char in scalar):
        with pytest.raises(UnencodableValue, match="surrogate"):
            MESSAGEPACK.encode_value(scalar)
        return
    got = MESSAGEPACK.decode_value(MESSAGEPACK.encode_value(scalar))
    assert type(got) is type(scalar)
    assert got.dtype == scalar.dtype
    assert got.tobytes() == scalar.tobytes()


@given(ARRAYS, st.integers(0, 200), st.integers(0, 255))
@settings(deadline=None)
def test_a_damaged_array_decodes_or_blames_the_peer(array: Any, at: int, byte: int) -> None:
    raw = bytearray(MESSAGEPACK.encode_value(array))
    raw[at % len(raw)] = byte
    try:
        repr(MESSAGEPACK.decode_value(bytes(raw)))  # repr reads the items: an unsafe view would fail here
    except RemoteProtocolError:
        assume(True)


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), INTS, st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_what_json_knows_arrives_as_what_it_was(value: Any) -> None:
    assert same(value, JSON.decode_value(JSON.encode_value(value)))


@given(VALUES)
@settings(deadline=None)
def test_json_refuses_with_a_path_or_writes_one_valid_document(value: Any) -> None:
    try:
        raw = JSON.encode_value(value)
    except UnencodableValue as error:
        assert error.path.startswith("$")
        assert error.type_name
    else:
        msgspec.json.decode(raw)


@pytest.mark.parametrize("codec", [MESSAGEPACK, JSON], ids=str)
@given(raw=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_a_value_or_blame_the_peer(codec: Codec, raw: bytes) -> None:
    try:
        codec.decode_value(raw)
    except RemoteProtocolError as error:
        assert str(error).isprintable()


@given(st.integers(1, 13), st.binary(max_size=64))
@settings(deadline=None)
def test_any_extension_payload_is_a_value_or_blames_the_peer(code: int, payload: bytes) -> None:
    raw = msgspec.msgpack.encode([msgspec.msgpack.Ext(code, payload)])
    try:
        MESSAGEPACK.decode_value(raw)
    except RemoteProtocolError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    "wrap",
    [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: {dt.date(2024, 1, 1): v}],
    ids=["list", "map", "tuple", "mapping"],
)
def test_depth_64_arrives_and_65_is_refused(wrap: Any) -> None:
    value: Any = 0
    for _ in range(64):
        value = wrap(value)
    assert same(value, MESSAGEPACK.decode_value(MESSAGEPACK.encode_value(value)))
    with pytest.raises(UnencodableValue):
        MESSAGEPACK.encode_value(wrap(value))


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UnencodableValue):
        MESSAGEPACK.encode_value(value)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.lists(st.integers(0, 1600), max_size=6))
def test_frames_are_the_same_however_they_are_chunked(payloads: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(map(frame, payloads))
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    reader = FrameReader(300)
    got: list[bytes] = []
    for low, high in itertools.pairwise(bounds):
        got += map(bytes, reader.feed(raw[low:high]))
    assert got == payloads
    assert not reader.mid_frame


@pytest.mark.parametrize("expected", [expected for expected, _ in VECTORS], ids=lambda e: e["title"])
@given(garbage=st.binary(min_size=1, max_size=120), framed=st.booleans())
@settings(deadline=None, max_examples=EXAMPLES // 5)
def test_any_garbage_gives_events_or_blames_the_peer(expected: dict[str, Any], garbage: bytes, framed: bool) -> None:
    raw = frame(garbage) if framed else garbage
    whole = play.outcome(play.opened(expected), [raw])
    single = play.outcome(play.opened(expected), [raw[at : at + 1] for at in range(len(raw))])
    assert single == whole


JSON_PAYLOADS = st.one_of(
    st.binary(min_size=1, max_size=120),
    st.dictionaries(
        st.sampled_from(["id", "method", "body", "deadline_ms", "stream", "headers", "type", "payload", "tenant"]),
        st.one_of(JSON_VALUES, st.just("request"), st.just({"id": 1, "method": "add"})),
    ).map(msgspec.json.encode),
    st.sampled_from(
        [
            b'{"id":1,"method":"\\ud800"}',
            b'{"id":1,"method":"a","body":"\\ud800"}',
            b'{"id":1,"ok":false,"error":"\\udfff"}',
        ]
    ),
)


def frames_of(raw: bytes) -> list[bytes]:
    """The whole frames at the front of `raw`, then what is left."""
    found, at = [], 0
    while at + 4 <= len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "big")
        if end > len(raw):
            break
        found.append(raw[at:end])
        at = end
    return [*found, raw[at:]] if at < len(raw) else found


@pytest.mark.parametrize("expected", [expected for expected, _ in VECTORS], ids=lambda expected: expected.get("name", "vector"))
@given(damage=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2))
@settings(max_examples=EXAMPLES // 10)
def test_the_short_way_sees_what_the_long_way_sees(expected: dict[str, Any], damage: list[tuple[int, int]]) -> None:
    raw = bytearray(next(raw for other, raw in VECTORS if other is expected))
    for at, byte in damage:
        if at < len(raw):
            raw[at] = byte
    short, long = play.opened(expected), play.opened(expected)
    for chunk in frames_of(bytes(raw)):
        brief = short.brief(chunk)
        whole = play.outcome(long, [chunk])
        if brief is None:
            assert play.outcome(short, [chunk]) == whole
        else:
            (event,), end = whole
            body = event.pop("body")
            assert end is None and repr(brief.body) == repr(long.value(body) if body else None)
            assert {**play.described(brief, body=False), "event": event["event"]} == event
        assert list(short.open_calls) == list(long.open_calls)
        if whole[1] is not None:
            break


@given(st.lists(JSON_PAYLOADS, min_size=1, max_size=4))
@settings(deadline=None)
def test_any_client_gets_events_or_is_to_blame(payloads: list[bytes]) -> None:
    raw = b"".join(map(frame, payloads))
    server = ServerConnection(request_limit=4096)
    whole = play.outcome(server, [raw])
    single = play.outcome(ServerConnection(request_limit=4096), [raw[at : at + 1] for at in range(len(raw))])
    assert single == whole
    for event in whole[0]:
        if event["event"] == "Called":
            try:
                server.value(event["body"])
            except RemoteProtocolError:
                continue  # refused with the peer to blame: one of the two permitted outcomes


@given(st.sampled_from([r"\ud800", r"\u0000", "é", "x" * 5000]))
def test_a_json_failure_of_any_text_is_an_event_or_a_breach(text: str) -> None:
    caller = CallerConnection(JSON)
    caller.receive(frame(b'{"ready":{"functions":{}}}'))
    caller.request(1, "add", None)
    report = f'{{"type":"{text}","traceback":"{text}"}}'
    payload = f'{{"id":1,"ok":false,"code":"internal","error":"{text}","report":{report}}}'
    play.outcome(caller, [frame(payload.encode())])


HOSTILE_MAP = b"\xde\x04\xb0" + b"\xd8\x0a" * 1200 + b"\x00" * 20_000
"""1200 keys that are extensions, in a value long enough to be looked at."""


@given(VALUES)
@settings(deadline=None)
def test_a_hostile_map_is_found_behind_any_value(value: Any) -> None:
    raw = MESSAGEPACK.encode_value(value)
    with pytest.raises(ValueError, match="as a key"):
        check_keys(b"\x92" + raw + HOSTILE_MAP)
    check_keys(b"\x93" + raw + b"\xc6\x00\x00\x80\x00" + bytes(0x8000) + raw)
