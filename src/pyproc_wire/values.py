"""User values: each arrives as what it was, or is refused with its place; nothing is changed silently.

A walk turns a value into one that msgspec encodes without loss: what MessagePack knows stays the very same
object, the rest becomes an extension type (`extensions`, `arrays`). Only exact types are plain: a subclass
would arrive as its base. A value of plain types costs one pass in C over its types and is never copied.

A codec is a table of converters, one for each exact type. What is in no table: msgspec Structs and
dataclasses become maps of their fields, numpy has its own file, and everything else is refused with a
remedy.

Handing the encoder a hook was rejected: msgspec calls it for unknown types only, after it has already
turned a tuple into a list, a set into a list and an aware datetime into UTC.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import msgspec

from pyproc_wire.errors import UnencodableValue, printable
from pyproc_wire.limits import INT_MAX, INT_MIN, MAX_DEPTH

SCALARS: Final[frozenset[type]] = frozenset({type(None), bool, int, float, str, bytes})
"""What MessagePack carries by itself."""

TEXT: Final[frozenset[type]] = frozenset({str})

MAPS: Final[frozenset[type]] = frozenset({dict})


class Walk:
    """The rules of one codec: which types pass untouched, which are converted, and by what.

    A converter takes the walk, the value and its depth, and returns what to encode in its place. A map of plain keys and
    plain values, the most frequent body, is told apart before any converter is asked. Where bytes have a converter, shorter ones than
    `large` are plain all the same.
    """

    __slots__ = ("adopt_foreign", "converters", "keys", "large", "name", "plain")

    def __init__(
        self,
        name: str,
        plain: frozenset[type],
        keys: frozenset[type],
        converters: dict[type, Callable[[Walk, Any, int], Any]],
        adopt_foreign: Callable[[Any], Any],
        large: int = 0,
    ) -> None:
        self.name = name
        self.plain = plain
        self.keys = keys
        self.converters = converters
        self.adopt_foreign = adopt_foreign
        self.large = large

    def carry(self, value: Any, depth: int) -> Any:
        """`value`, at `depth`, as it is to be encoded. Raises UnencodableValue with the path of what cannot be carried."""
        kind = type(value)
        plain = self.plain
        if kind is dict and depth < MAX_DEPTH:
            keys = self.keys
            for key, item in value.items():
                if (type(item) not in plain and not (type(item) is bytes and len(item) < self.large)) or type(key) not in keys:
                    break
            else:
                return value
        elif kind in plain:
            return value
        convert = self.converters.get(kind)
        if convert is not None:
            return convert(self, value, depth)
        return self._adopt(kind, value, depth)

    def _adopt(self, kind: type, value: Any, depth: int) -> Any:
        """Types that no table can name: msgspec Structs, dataclasses, numpy's."""
        if isinstance(value, msgspec.Struct):
            return self.carry(_struct_fields(value), depth)
        if hasattr(kind, "__dataclass_fields__"):
            return self.carry(_dataclass_fields(value), depth)
        if "numpy" in sys.modules:
            carried = self.adopt_foreign(value)
            if carried is not None:
                return carried
        raise UnencodableValue(_refusal(kind, self.name), value)


def _struct_fields(value: msgspec.Struct) -> dict[str, Any]:
    """The map that `msgspec.convert` turns back into the Struct: encoded names, the tag, no unset fields."""
    kind = type(value)
    config = kind.__struct_config__
    fields: dict[str, Any] = {}
    if config.tag is not None and config.tag_field is not None:
        fields[config.tag_field] = config.tag
    for name, encoded in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        item = getattr(value, name)
        if item is not msgspec.UNSET:
            fields[encoded] = item
    return fields


def _dataclass_fields(value: Any) -> dict[str, Any]:
    import dataclasses  # loaded already, or there would be no dataclass

    try:
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    except AttributeError as error:
        raise UnencodableValue(f"{type(value).__name__} has a field without a value", value) from error


def _refusal(kind: type, codec: str) -> str:
    name = printable(kind.__name__)
    if any(base.__module__ == "enum" for base in kind.__mro__):
        return f"{name} is an enum and is not carried, pass its .value"
    for base in (bool, int, float, str, bytes, tuple, list, dict, set, frozenset):
        if issubclass(kind, base):
            return f"{name} is a subclass of {base.__name__} and would arrive as one, convert it first"
    if kind is bytearray or kind is memoryview:
        return f"{name} is not carried, convert it to bytes"
    return f"{name} is not carried by {codec}"


def too_deep(value: object) -> UnencodableValue:
    return UnencodableValue(f"value is nested deeper than {MAX_DEPTH} (or holds itself)", value)


def carry_list(walk: Walk, value: list[Any] | tuple[Any, ...], depth: int) -> Any:
    """A list whose items are all plain, or all maps of plain keys and values, is returned as it is, after passes in C alone: a
    batch is one of hundreds of small bodies."""
    if depth >= MAX_DEPTH:
        raise too_deep(value)
    plain, kinds = walk.plain, set(map(type, value))
    if plain.issuperset(kinds):
        return value
    if kinds == MAPS and depth + 1 < MAX_DEPTH and walk.keys.issuperset(map(type, chain.from_iterable(value))) \
            and plain.issuperset(map(type, chain.from_iterable(map(dict.values, value)))):
        return value
    carried: list[Any] = []
    add, carry, large, depth = carried.append, walk.carry, walk.large, depth + 1
    try:
        for item in value:
            kind = type(item)
            add(item if kind in plain or (kind is bytes and len(item) < large) else carry(item, depth))
    except UnencodableValue as error:
        error.beneath_index(len(carried))
        raise
    return carried


def carry_scalar_map(walk: Walk, value: dict[Any, Any], depth: int) -> Any:
    """A map whose keys are known to be scalars; one whose values are all plain is returned as it is."""
    if depth >= MAX_DEPTH:
        raise too_deep(value)
    plain = walk.plain
    if plain.issuperset(map(type, value.values())):
        return value
    carried: dict[Any, Any] = {}
    carry, large, depth = walk.carry, walk.large, depth + 1
    key: Any = None
    try:
        for key, item in value.items():
            kind = type(item)
            carried[key] = item if kind in plain or (kind is bytes and len(item) < large) else carry(item, depth)
    except UnencodableValue as error:
        error.beneath(key)
        raise
    return carried


def blame(carried: Any, cause: Exception) -> UnencodableValue:
    """Where in an already converted value the encoder stumbled: an integer out of range or text that is no
    Unicode."""
    found = _culprit(carried)
    if found is None:
        return UnencodableValue(f"value is not encodable: {cause}", carried)
    found.__cause__ = cause
    return found


def _culprit(carried: Any) -> UnencodableValue | None:
    kind = type(carried)
    if kind is int and not INT_MIN <= carried <= INT_MAX:
        return UnencodableValue("int is outside -2^63 to 2^64-1", carried)
    if kind is str and not is_unicode(carried):
        return UnencodableValue("str holds a lone surrogate and has no UTF-8 form", carried)
    if kind is dict:
        for key, item in carried.items():
            found = _culprit(key) or _culprit(item)
            if found is not None:
                found.beneath(key)
                return found
    elif kind is list or kind is tuple:
        for index, item in enumerate(carried):
            found = _culprit(item)
            if found is not None:
                found.beneath_index(index)
                return found
    return None


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
