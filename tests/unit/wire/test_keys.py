"""Keys whose hashes a peer chose: they are refused before they cost time, and honest values pass."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec
import numpy
import pytest
from msgspec.msgpack import Ext

from pyproc_wire import extensions
from pyproc_wire.codec import MESSAGEPACK
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.keys import SHORT_BYTES, check_keys
from pyproc_wire.limits import MAX_KEYS

HASH_PERIOD = 2**61 - 1
"""The modulus of Python's hash of an integer, and so of a UUID."""


def colliding(count: int) -> list[uuid.UUID]:
    return [uuid.UUID(int=5 + number * HASH_PERIOD) for number in range(count)]


def packed(value: uuid.UUID) -> bytes:
    return b"\xd8" + bytes((extensions.UUID,)) + value.bytes


def refused_quickly(raw: bytes, text: str) -> None:
    began = time.process_time()
    with pytest.raises(RemoteProtocolError, match=text):
        MESSAGEPACK.decode_value(raw)
    assert time.process_time() - began < 2, "unrefused it would take hours"


COUNT = 90_000


@pytest.mark.parametrize("nested", [b"", b"\x91", b"\x81\xa1k"], ids=["bare", "in a list", "in a map"])
def test_a_map_of_colliding_extensions_is_refused(nested: bytes) -> None:
    body = b"".join(packed(key) + b"\xc0" for key in colliding(COUNT))
    refused_quickly(nested + b"\xdf" + COUNT.to_bytes(4, "big") + body, "extension as a key")


def test_a_map_whose_keys_are_arrays_is_refused() -> None:
    body = b"".join(b"\x92\xcf" + number.to_bytes(8, "big") + b"\x01\xc0" for number in range(COUNT))
    refused_quickly(b"\xdf" + COUNT.to_bytes(4, "big") + body, "array or an extension as a key")


@pytest.mark.parametrize("code", [extensions.SET, extensions.FROZENSET, extensions.MAPPING])
def test_sets_and_mappings_of_colliding_keys_are_refused(code: int) -> None:
    items: list[Any] = [Ext(extensions.UUID, key.bytes) for key in colliding(COUNT)]
    if code == extensions.MAPPING:
        items = [part for key in items for part in (key, None)]
    refused_quickly(msgspec.msgpack.encode([Ext(code, msgspec.msgpack.encode(items))]), "collide")


def test_a_hostile_map_inside_an_extension_is_found_too() -> None:
    body = b"".join(packed(key) + b"\xc0" for key in colliding(COUNT))
    inner = b"\x91\xdf" + COUNT.to_bytes(4, "big") + body
    refused_quickly(msgspec.msgpack.encode(Ext(extensions.TUPLE, inner)), "extension as a key")


def test_a_map_of_too_many_numbers_is_refused_before_it_is_built() -> None:
    count = 2 * MAX_KEYS
    body = b"".join(b"\xce" + number.to_bytes(4, "big") + b"\xc0" for number in range(count))
    refused_quickly(b"\xdf" + count.to_bytes(4, "big") + body, "more than 100000 keys")


def test_too_many_items_of_a_set_are_refused() -> None:
    items = msgspec.msgpack.encode(list(range(MAX_KEYS + 1)))
    refused_quickly(msgspec.msgpack.encode(Ext(extensions.SET, items)), "more than 100000 keys")


@pytest.mark.parametrize(
    "value",
    [
        [{"id": number, "price": number / 3, "tags": [number, "ä"], "pair": (1, 2)} for number in range(3000)],
        {str(number): [number / 7] * 20 for number in range(500)},
        {number: -number for number in range(20_000)},
        {"blob": bytes(range(256)) * 400, "array": numpy.arange(10_000.0)},
        [list(range(100)) for _ in range(300)],
        [[number / 7 for number in range(100)] for _ in range(100)],
        {uuid.UUID(int=number**5): (number,) for number in range(5000)},
        {-1, -2, *range(5000)},
        ["ü" * 100] * 400,
        [None, True, 2**63, -(2**63), b"x" * 300, "y" * 70_000, 1.5] * 3000,
        [{}, [], (), [[]] * 20] * 2000,
    ],
    ids=range(11),
)
def test_honest_long_values_pass(value: Any) -> None:
    raw = MESSAGEPACK.encode_value(value)
    assert len(raw) > SHORT_BYTES or isinstance(value, set)
    got = MESSAGEPACK.decode_value(raw)
    if isinstance(value, dict) and "array" in value:
        assert (got["array"] == value["array"]).all()
        assert got["blob"] == value["blob"]
    else:
        assert got == value


@pytest.mark.parametrize("length", [SHORT_BYTES + 1, SHORT_BYTES + 1000])
@pytest.mark.parametrize("first", range(256))
def test_any_first_byte_before_zeros_ends_the_walk(first: int, length: int) -> None:
    try:
        check_keys(bytes((first,)) + b"\x00" * length)
    except ValueError as error:
        assert str(error)
