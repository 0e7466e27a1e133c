"""Keys that collide, and containers without number: what keeps a hostile value from taking hours or gigabytes.

Text and bytes are hashed with a secret of this process; numbers, UUIDs, Decimals and tuples of them are not, so a peer can
write any number of different ones with one hash, or with hashes that are probed along one way (CPython, Objects/dictobject.c).
n of those cost n^2 steps in C, with the interpreter locked, where no deadline reaches. msgspec builds a map while it decodes,
so a long payload is looked at before:

* `check_keys` walks over the bytes of a MessagePack value and refuses map keys that are arrays or extensions (a packer of
  ours never writes them), number keys that are probed without end, too many keys, and too deep nesting. It steps over bytes,
  text, extensions and lists of numbers as a whole, and is skipped where the bytes cannot do harm.
* `check_containers` counts what opens a container, those inside of extensions too, where the bytes could open too many.
* `distinct` is asked before a set or a map is built from an extension.

A short payload is not looked at: the worst it can cost is a few hundredths of a second.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyproc_wire.limits import MAX_CONTAINERS, MAX_DEPTH, MAX_KEYS

SHORT_BYTES: Final = 16 * 1024
"""Bytes: at 18 bytes a key fewer than a thousand keys that collide, measured 0.03 s."""

FEW_STEPS: Final = 64
"""Steps that are cheaper than a look at all the bytes: a large array in a small map is cleared by them."""

FEW_KEYS: Final = 1000
"""Bytes that open an array or an extension: below, a payload has too few such keys to do harm."""

LARGE: Final = 256
"""Keys: what a smaller map or set can cost beyond its bytes is ten times the work of an honest one."""

PROBES_MAX: Final = 32
"""Steps for each key beyond its first place, in a map or set that is built by numbers: chance gives two, multiples of a power of
two a few more, an attack thousands."""

_HARMLESS: Final = bytes(
    byte
    for byte in range(256)
    if not (0x90 <= byte <= 0x9F or 0xC7 <= byte <= 0xC9 or 0xD4 <= byte <= 0xD8 or 0xDC <= byte <= 0xDD)
)

_NEVER_OPENING: Final = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))
_CONTAINERS: Final = frozenset((b"\x01", b"\x02", b"\x03", b"\x04"))
"""Types of the extensions tuple, set, frozenset and mapping, the content of which is one array."""

LINEAR_PROBES: Final = 9
"""Of a set: places that are looked at one after the other (CPython, Objects/setobject.c)."""

_ALL_BITS: Final = (1 << 64) - 1
_MAPS: Final = (0xDE, 0xDF)
_NUMBERS: Final = frozenset((*range(0x80), *range(0xCA, 0xD4), *range(0xE0, 0x100)))
_LONG_NUMBERS: Final = bytes(range(0xCA, 0xD4))
_FLOAT: Final = 0xCB
_FLOAT_BYTES: Final = 9
_RUN: Final = 16
"""Items: a shorter list is not worth two slices."""

_FIXED: Final[dict[int, int]] = {
    **dict.fromkeys(range(0x80), 1),
    **{0xA0 + size: 1 + size for size in range(32)},
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC3), 1),
    0xCA: 5,
    0xCB: 9,
    0xCC: 2,
    0xCD: 3,
    0xCE: 5,
    0xCF: 9,
    0xD0: 2,
    0xD1: 3,
    0xD2: 5,
    0xD3: 9,
    **dict.fromkeys(range(0xE0, 0x100), 1),
}
_EXTENSION: Final[dict[int, int]] = {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
_SIZES: Final[tuple[int, ...]] = tuple(_FIXED.get(byte, 0) for byte in range(256))
"""Bytes of an element by its first byte; 0 where a length follows or elements do."""

_COUNTED: Final[dict[int, tuple[int, int]]] = {
    0xC4: (1, 2),
    0xC5: (2, 3),
    0xC6: (4, 5),
    0xD9: (1, 2),
    0xDA: (2, 3),
    0xDB: (4, 5),
    0xC7: (1, 3),
    0xC8: (2, 4),
    0xC9: (4, 6),
}
"""First byte -> bytes of the length, bytes before the content."""


def check_keys(raw: bytes) -> None:
    """Raise ValueError if decoding `raw`, a MessagePack value, could be made to take long. Malformed bytes
    pass."""
    if len(raw) <= SHORT_BYTES or _walk(raw, FEW_STEPS):
        return
    if len(raw.translate(None, _HARMLESS)) > FEW_KEYS or _may_hold_large_map(raw):
        _walk(raw, len(raw) + 1)


def _may_hold_large_map(raw: bytes) -> bool:
    """Whether there may be a map with many numbers as keys, or more keys than are permitted in smaller ones."""
    if len(raw) - len(raw.translate(None, _LONG_NUMBERS)) <= LARGE:
        return False
    if raw.count(_MAPS[0]) + raw.count(_MAPS[1]) > MAX_KEYS // _RUN:
        return True
    for first, length in zip(_MAPS, (2, 4), strict=True):
        at = raw.find(first)
        while at >= 0:
            if LARGE < int.from_bytes(raw[at + 1 : at + 1 + length], "big") <= len(raw) // 2:
                return True
            at = raw.find(first, at + 1)
    return False


def check_containers(raw: bytes) -> None:
    """Raise ValueError if `raw`, a MessagePack value, holds more than MAX_CONTAINERS. Malformed bytes pass."""
    if len(raw) > MAX_CONTAINERS and len(raw.translate(None, _NEVER_OPENING)) > MAX_CONTAINERS:
        _walk(raw, len(raw) + 1, into_extensions=True)


def _walk(raw: bytes, steps: int, *, into_extensions: bool = False) -> bool:
    """Whether the walk came to the end of the value, or to bytes that end the decoder too, within so many
    steps. An extension that is entered counts as a level of its own."""
    opened, keys, deepest = 0, 0, MAX_DEPTH * (2 if into_extensions else 1)
    outer: list[tuple[int, bool, list[int | None] | None]] = []
    left, in_map = 1, False
    numbers: list[int | None] | None = None  # of this map, if it is a large one: the keys' hashes, None for text and bytes
    at, end = 0, len(raw)
    while at < end:
        while left == 0:
            if numbers is not None:
                check_probes(numbers)
            if not outer:
                return True
            left, in_map, numbers = outer.pop()
        steps -= 1
        if steps < 0:
            return False
        first = raw[at]
        is_key = in_map and left % 2 == 0
        left -= 1
        size = _SIZES[first]
        if size:
            if is_key and numbers is not None:
                numbers.append(_hash_of_number(raw[at : at + size]) if first in _NUMBERS else None)
            at += size
            continue
        if first in _COUNTED or first in _EXTENSION:
            length, before = _COUNTED.get(first, (0, 2))
            extension = first in _EXTENSION or 0xC7 <= first <= 0xC9
            _refuse_key(is_key and extension)
            if is_key and numbers is not None:
                numbers.append(None)
            if extension and into_extensions and raw[at + before - 1 : at + before] in _CONTAINERS:
                outer.append((left, in_map, numbers))
                at, left, in_map, numbers = at + before, 1, False, None
            else:
                at += _EXTENSION.get(first, 0) or before + int.from_bytes(raw[at + 1 : at + 1 + length], "big")
        else:
            _refuse_key(is_key)
            outer.append((left, in_map, numbers))
            at, left, in_map = _opened(raw, at, first)
            numbers = [] if in_map and left > 2 * LARGE else None
            opened += 1
            keys += left // 2 if in_map else 0
            if len(outer) > deepest:
                raise ValueError(f"value is nested deeper than {MAX_DEPTH}")
            if opened > MAX_CONTAINERS:
                raise ValueError(f"value has more than {MAX_CONTAINERS} lists and maps")
            if keys > MAX_KEYS:
                raise ValueError(f"value has more than {MAX_KEYS} keys")
    for unfinished in (numbers, *(numbers for _, _, numbers in outer)):  # built before the decoder comes to its end
        if unfinished is not None:
            check_probes(unfinished)
    return True


def _hash_of_number(raw: bytes) -> int:
    """The hash of one number in MessagePack; of one that is cut off, anything."""
    first = raw[0]
    if first in (0xCA, 0xCB):
        return hash(struct.unpack(">f" if first == 0xCA else ">d", raw[1:])[0]) if len(raw) == _SIZES[first] else 0
    if len(raw) == 1:
        return hash(first - 0x100 if first >= 0xE0 else first)
    return hash(int.from_bytes(raw[1:], "big", signed=first >= 0xD0))


def check_probes(known: Sequence[int | None], linear: int = 0) -> None:
    """Raise ValueError if a dict (`linear` 0) or a set (LINEAR_PROBES) of keys of such hashes is built at more than PROBES_MAX steps
    for each: it is built here, places only, as CPython does (insertdict and dictresize, set_add_entry and set_table_resize).
    None is a hash that no peer can know."""
    if len(known) - known.count(None) <= LARGE:
        return
    hashes = [hash(str(count)) if own is None else own for count, own in enumerate(known)]
    if _has_a_place_each(hashes):
        return
    left, size, used = PROBES_MAX * len(hashes), 8, 0
    places = bytearray(size)
    for count, own in enumerate(hashes, 1):
        if used * 3 >= size * 2 if not linear else used * 5 >= size * 3:
            while size <= used * (3 if not linear else 4):
                size *= 2
            places = bytearray(size)
            used = 0
            for earlier in hashes[: count - 1]:
                left -= _place(places, size - 1, earlier, linear)
                used += 1
        left -= _place(places, size - 1, own, linear)
        used += 1
        if left < 0:
            raise ValueError("set or map has keys that collide")


def _has_a_place_each(hashes: Sequence[int]) -> bool:
    """Whether no two meet in a table of any size on the way, as numbers in a row do not: seen at a tenth of the price."""
    size = 8
    while True:
        first = hashes[:size]
        if len(set(map((size - 1).__and__, first))) != len(first):
            return False
        if size >= len(hashes):
            return True
        size *= 2


def _place(places: bytearray, mask: int, own: int, linear: int) -> int:
    """Take the first free place on the way of a hash; how many steps that took."""
    at, perturbed, steps = own & mask, own & _ALL_BITS, 0
    while places[at]:
        steps += 1
        if linear and at + linear <= mask:
            near = places.find(0, at + 1, at + linear + 1)
            if near >= 0:
                at = near
                break
        perturbed >>= 5
        at = (at * 5 + perturbed + 1) & mask
    places[at] = 1
    return steps


def _refuse_key(found: bool) -> None:  # noqa: FBT001 a condition, as in assert
    if found:
        raise ValueError("map has an array or an extension as a key")


def _opened(raw: bytes, at: int, first: int) -> tuple[int, int, bool]:
    """Past the opening of an array or a map: where its elements begin, how many they are, whether it is a
    map."""
    in_map = first <= 0x8F or first >= 0xDE
    if first <= 0x9F:
        count, at = first & 0x0F, at + 1
    else:
        length = 2 if first in (0xDC, 0xDE) else 4
        count, at = int.from_bytes(raw[at + 1 : at + 1 + length], "big"), at + 1 + length
    if in_map:
        if count > MAX_KEYS:
            raise ValueError(f"map has more than {MAX_KEYS} keys")
        return at, 2 * count, True
    if _RUN <= count <= len(raw) - at:
        if raw[at] == _FLOAT and raw[at : at + count * _FLOAT_BYTES : _FLOAT_BYTES].count(_FLOAT) == count:
            return at + count * _FLOAT_BYTES, 0, False
        if raw[at : at + count].isascii():
            return at + count, 0, False
    return at, count, False


def distinct(items: Sequence[Any], build: Callable[[Any], Any]) -> Any:
    """`build(items)`, dict or a set, after ValueError for too many items and for hashes that are probed longer than by chance."""
    if len(items) > MAX_KEYS:
        raise ValueError(f"set or map has more than {MAX_KEYS} keys")
    if len(items) > LARGE:
        known = [None if type(item) is str or type(item) is bytes else hash(item) for item in items]
        check_probes(known, LINEAR_PROBES if build is set or build is frozenset else 0)
    return build(items)
