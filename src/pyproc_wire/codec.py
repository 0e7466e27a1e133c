"""The one path from objects to bytes and the one path back, for each of the two codecs.

`encode` and `decode` are for our own messages, `encode_value` and `decode_value` for what users wrote.
Decoding raises RemoteProtocolError, whatever the payload: there is no third outcome. Nothing here knows
frames or connections.

Depth and keys of a decoded value are checked only if its bytes could break the limit: a value of depth d
has at least d bytes that open a container, and one of k keys has at least 2k bytes, so most payloads are
cleared without a walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import msgspec
from msgspec import Raw

from pyproc_wire import extensions, json_values
from pyproc_wire.arena import Receiver, Sender
from pyproc_wire.errors import RemoteProtocolError, UnencodableValue, printable
from pyproc_wire.extensions import DECODE_FAILURES
from pyproc_wire.frame import BRIEF_BYTES
from pyproc_wire.keys import SHORT_BYTES, check_containers, check_keys
from pyproc_wire.limits import HEADER_BYTES, INT_MAX, INT_MIN, MAX_CONTAINERS, MAX_DEPTH, MAX_KEYS
from pyproc_wire.values import SCALARS, Walk, blame

_SHORTEST_BREACH: Final = {"msgpack": MAX_DEPTH, "json": 19}
"""Per codec, bytes: in a shorter payload no value is too deep or, in JSON, an integer out of range."""

_MANY_BYTES: Final = 2 * MAX_KEYS
"""Bytes: a shorter payload cannot hold more than MAX_KEYS keys with their values."""

Encoded = bytes | bytearray | memoryview | Raw

_NOT_OPENING: Final[dict[str, bytes]] = {
    "msgpack": bytes(
        byte
        for byte in range(256)
        if not (0x80 <= byte <= 0x9F or 0xC7 <= byte <= 0xC9 or 0xD4 <= byte <= 0xD8 or 0xDC <= byte <= 0xDF)
    ),
    "json": bytes(byte for byte in range(256) if byte not in b"[{"),
}
"""Per codec, the bytes that cannot open a container."""


class Codec:
    """One of the two codecs. Safe to share between threads: nothing is kept between calls."""

    __slots__ = (
        "_decode_any",
        "_decoders",
        "_encode",
        "_is_json",
        "_make_decoder",
        "_not_opening",
        "_shortest_breach",
        "_walk",
        "brief_bytes",
        "name",
        "prepare",
    )

    def __init__(self, name: str, walk: Walk) -> None:
        self.name = name
        self._is_json = name == "json"
        self._walk = walk
        self.prepare: Callable[[Any, int], Any] = walk.carry
        """A user value, at depth 0, as it is to be encoded in a message of ours; see `encode_prepared`. Not a method and without
        a default, either of which would be one call more in each call."""
        self._not_opening = _NOT_OPENING[name]
        self._shortest_breach = _SHORTEST_BREACH[name]
        self.brief_bytes = min(self._shortest_breach + HEADER_BYTES, BRIEF_BYTES)
        """A value in a shorter frame needs no check but its decoding."""
        self._decoders: dict[Any, Callable[[Any], Any]] = {}
        self._encode: Callable[[Any], bytes]
        self._make_decoder: Callable[[Any], Any]
        if name == "msgpack":
            hook = extensions.unpacker(0)
            self._encode = msgspec.msgpack.Encoder().encode
            self._make_decoder = lambda kind: msgspec.msgpack.Decoder(kind, ext_hook=hook)
        else:
            self._encode = msgspec.json.Encoder().encode
            self._make_decoder = msgspec.json.Decoder
        self._decode_any: Callable[[Any], Any] = self._make_decoder(Any).decode

    def __repr__(self) -> str:
        return f"<codec {self.name}>"

    def encode(self, message: Any) -> bytes:
        """The bytes of a message of ours that holds no user value."""
        return self._encode(message)

    def encode_prepared(self, message: Any, prepared: Any, value: Any) -> bytes:
        """The bytes of a message of ours in which `prepared`, from `prepare(value, 0)`, stands.

        Raises UnencodableValue for what only the encoder sees: a lone surrogate, an integer out of range,
        too many keys.
        """
        try:
            raw = self._encode(message)
        except (OverflowError, UnicodeEncodeError) as error:
            raise blame(prepared, error) from error
        if len(raw) > _MANY_BYTES:
            if max(count_keys(value), count_keys(prepared)) > MAX_KEYS:
                raise UnencodableValue(f"value has more than {MAX_KEYS} keys", value)
            if len(raw) > MAX_CONTAINERS and sum(map(len, _levels(value))) > MAX_CONTAINERS:
                raise UnencodableValue(f"value has more than {MAX_CONTAINERS} lists and maps", value)
        if self._is_json and json_values.may_hold_long_int(raw):
            self._check_ints(prepared)
        return raw

    def encode_value(self, value: Any) -> bytes:
        """The bytes of a user value. Raises UnencodableValue with the path of what cannot be carried."""
        prepared = self.prepare(value, 0)
        return self.encode_prepared(prepared, prepared, value)

    def _check_ints(self, prepared: Any) -> None:
        for number in _ints(prepared):
            if not INT_MIN <= number <= INT_MAX:
                raise blame(prepared, OverflowError("int is out of range"))

    def decoder(self, kind: Any) -> Callable[[Encoded], Any]:
        """A decoding function for one type; made once and kept. It raises msgspec's errors."""
        decode = self._decoders.get(kind)
        if decode is None:
            decode = self._decoders[kind] = self._make_decoder(kind).decode
        return decode

    def decoder_beside(self, receiver: Receiver, kind: Any) -> Callable[[Encoded], Any]:
        """As `decoder`, for values that may refer to the arena of `receiver`; a new one each time. JSON has no references."""
        if self._is_json:
            return self.decoder(kind)
        return msgspec.msgpack.Decoder(kind, ext_hook=extensions.unpacker(0, receiver)).decode

    def prepare_beside(self, sender: Sender) -> Callable[[Any, int], Any]:
        """As `prepare`, with what is large put into the arena of `sender`. JSON has no references."""
        return self.prepare if self._is_json else extensions.walk_beside(sender).carry

    def decode(self, raw: Encoded, type: Any = Any) -> Any:
        """`raw` as `type`. Raises RemoteProtocolError."""
        try:
            return self.decoder(type)(raw)
        except DECODE_FAILURES as error:
            raise RemoteProtocolError(f"message is not valid {self.name}: {reason(error)}") from error

    def decode_value(self, raw: Encoded, decode: Callable[[Encoded], Any] | None = None) -> Any:
        """The user value in `raw`, its depth, keys and integers within the limits; `decode` is of `decoder_beside`.

        Raises RemoteProtocolError, and LocalProtocolError where a numpy value arrives and numpy is missing.
        """
        size = len(raw)
        if decode is None:
            decode = self._decode_any
        try:
            if size < self._shortest_breach:
                return decode(raw)
            raw = bytes(raw)
            if size > MAX_CONTAINERS:
                (json_values.check_containers if self._is_json else check_containers)(raw)
            if size > SHORT_BYTES and not self._is_json:
                check_keys(raw)
            value = decode(raw)
        except DECODE_FAILURES as error:
            raise RemoteProtocolError(f"value is not valid {self.name}: {reason(error)}") from error
        self._check_long(raw, value)
        return value

    def _check_long(self, raw: bytes, value: Any) -> None:
        if len(raw) > _MANY_BYTES or len(raw.translate(None, self._not_opening)) > MAX_DEPTH:
            check_shape(value)
        if self._is_json and json_values.may_hold_long_int(raw):
            for number in _ints(value):
                if not INT_MIN <= number <= INT_MAX:
                    raise RemoteProtocolError("value holds an integer outside -2^63 to 2^64-1")


def reason(error: BaseException) -> str:
    """The text of a decoding error, bounded and escaped, as a part of a sentence."""
    text = printable(str(error))
    if not text:
        return type(error).__name__
    return text if text[1:2].isupper() else text[0].lower() + text[1:]  # JSON is malformed, utf-8 codec cannot decode


def check_shape(value: Any) -> None:
    """Raise RemoteProtocolError if `value` is nested deeper than 64 or has more than 100,000 keys.

    A scalar has depth 0, an empty list depth 1. Keys of all maps are counted together.
    """
    keys = 0
    for depth, level in enumerate(_levels(value)):
        if depth >= MAX_DEPTH:
            raise RemoteProtocolError(f"value is nested deeper than {MAX_DEPTH}")
        keys += sum(map(len, _maps(level)))
        if keys > MAX_KEYS:
            raise RemoteProtocolError(f"value has more than {MAX_KEYS} keys")


def count_keys(value: Any) -> int:
    """Keys of all maps in a value that is known to be no deeper than the limit."""
    return sum(len(item) for level in _levels(value) for item in _maps(level))


_CONTAINERS: Final = (list, dict, tuple, set, frozenset)


def _levels(value: Any) -> Iterator[list[Any]]:
    """The containers of each depth, outermost first; a level of scalars alone, and a list of them, is passed over in C."""
    level = [value] if isinstance(value, _CONTAINERS) else []
    while level:
        yield level
        inner: list[Any] = []
        if not SCALARS.issuperset(map(type, chain(chain.from_iterable(level), chain.from_iterable(map(dict.values, _maps(level)))))):
            for container in level:
                for items in (container, container.values()) if type(container) is dict else (container,):
                    if not SCALARS.issuperset(map(type, items)):
                        inner += [item for item in items if isinstance(item, _CONTAINERS)]
        level = inner


def _maps(level: list[Any]) -> list[dict[Any, Any]]:
    return level if {*map(type, level)} == {dict} else [item for item in level if type(item) is dict]


def _ints(value: Any) -> Iterator[int]:
    if type(value) is int:
        return iter((value,))
    items = (
        chain(container, container.values() if type(container) is dict else ())
        for level in _levels(value)
        for container in level
    )
    return (item for item in chain.from_iterable(items) if type(item) is int)


MESSAGEPACK: Final = Codec("msgpack", extensions.WALK)
JSON: Final = Codec("json", json_values.WALK)
