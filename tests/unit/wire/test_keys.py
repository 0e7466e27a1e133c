"""Keys whose hashes a peer chose: they are refused before they cost time, and honest values pass."""

from __future__ import annotations

import random
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
    items: list[Any] = [Ext(extensions.UUID, key.bytes) for key in colliding(20_000)]
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
def test_any_first_byte_before_zeros_ends_the_walk(length: int) -> None:
    for first in range(256):
        try:
            check_keys(bytes((first,)) + b"\x00" * length)
        except ValueError as error:
            assert str(error), f"first byte {first:#x}"


def along_one_way(bits: int = 12) -> list[int]:
    """Numbers of different hashes that a dict of 2^bits places probes one after the other: half of them fill the way from its
    beginning on, the others come upon its first quarter by steps that are all taken."""
    mask, place, way = (1 << bits) - 1, 1, []
    for _ in range(1 << bits):
        way.append(place)
        place = (5 * place + 1) & mask
    half = (2 << bits) // 3 // 2
    taken, early = set(way[:half]), set(way[: half // 4])
    found: list[int] = []
    number = mask
    while len(found) < half:
        number += 1
        place, perturbed = number & mask, number
        while place in taken and perturbed:
            perturbed >>= 5
            place = (place * 5 + perturbed + 1) & mask
        if place in early and not perturbed:
            found.append(number)
    return way[:half] + found


def test_a_map_of_numbers_along_one_way_is_refused() -> None:
    keys = along_one_way()
    assert len({hash(key) for key in keys}) == len(keys)
    body = b"".join(b"\xcf" + key.to_bytes(8, "big") + b"\xc0" for key in keys)
    whole = b"\xdf" + len(keys).to_bytes(4, "big") + body
    for raw in (whole, whole[:-1], b"\x91" + whole + b"\xa1"):  # cut off, it is built up to there
        refused_quickly(raw, "collide")
    mixed = msgspec.msgpack.encode({str(number): number for number in range(500)})[3:]  # behind its header of 3 bytes
    refused_quickly(b"\xdf" + (len(keys) + 500).to_bytes(4, "big") + mixed + body, "collide")


def test_a_mapping_of_numbers_along_one_way_is_refused() -> None:
    items = [part for key in along_one_way() for part in (key, None)]
    refused_quickly(msgspec.msgpack.encode([Ext(extensions.MAPPING, msgspec.msgpack.encode(items))]), "collide")


def test_many_maps_below_the_size_that_is_looked_at_have_no_more_keys_than_one_large() -> None:
    one = msgspec.msgpack.encode({1000 + number: None for number in range(200)})
    refused_quickly(b"\xdd" + (600).to_bytes(4, "big") + one * 600, f"more than {MAX_KEYS} keys")


HONEST = {
    "in a row": range(90_000), "negative": range(-20_000, 0), "every 4096th": range(0, 4096 * 20_000, 4096),
    "multiples of 2^20": [number << 20 for number in range(20_000)], "multiples of 2^40": [number << 40 for number in range(20_000)],
    "times of day": [1_700_000_000_000_000_000 + 1_000_000 * number for number in range(20_000)],
    "floats": [number / 7 for number in range(20_000)], "whole floats": [float(number << 10) for number in range(20_000)],
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_numbers_pass(name: str) -> None:
    keys = list(HONEST[name])
    for value in (dict.fromkeys(keys, 1), set(keys), [{"a": dict.fromkeys(keys, 0.5)}]):
        assert MESSAGEPACK.decode_value(MESSAGEPACK.encode_value(value)) == value


def test_random_numbers_pass() -> None:
    keys = [random.getrandbits(63) for _ in range(20_000)]
    for value in (dict.fromkeys(keys), frozenset(keys)):
        assert MESSAGEPACK.decode_value(MESSAGEPACK.encode_value(value)) == value
