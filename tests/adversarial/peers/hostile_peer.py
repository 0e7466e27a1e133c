"""The hostile worker: an interpreter for the steps of `catalogue.toml`, which writes to its channel behind the protocol's back.

Run by a pool, inside its sandbox. Descriptor 3 takes the answers. What the steps are is told at the top of the catalogue.
"""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from pyproc_worker import current_call, expose, run_worker

PICKLE = b"cposix\nsystem\n(S'true'\ntR."
LARGE = 1 << 18  # bytes: what lies in an arena is at least so long


def _array(offset: int, dtype: bytes, *shape: int) -> bytes:
    """A reference to an array in the arena of answers, which is 1 MiB here."""
    lengths = b"".join(n.to_bytes(8, "big") for n in shape)
    payload = offset.to_bytes(8, "big") + bytes([len(dtype)]) + dtype + bytes([len(shape)]) + lengths
    return b"\xc7" + bytes([len(payload)]) + b"\x0f" + payload


def _bytes(offset: int, size: int) -> bytes:
    return b"\xd8\x0e" + offset.to_bytes(8, "big") + size.to_bytes(8, "big")


RAW = {  # bodies that no honest worker can send, and nil, as MessagePack
    "@nil": b"\xc0",
    "@nested": b"\x91" * 1_000_000 + b"\xc0",
    "@deep": b"\x91" * 65 + b"\xc0",
    "@open": b"\x91" * 1_000_000,  # a million arrays, and nothing in the innermost
    "@keys": b"\xdf" + (100_001).to_bytes(4, "big") + b"".join(b"\xce" + n.to_bytes(4, "big") + b"\xc0" for n in range(100_001)),
    "@announced": b"\xdd\xff\xff\xff\xff",  # an array of 2^32-1 items, none of which follows
    "@pickle": b"\xc7" + bytes([len(PICKLE)]) + b"\x7f" + PICKLE,  # an extension type that does not exist
    "@beyond": _array((1 << 20) - LARGE + 1, b"|u1", LARGE),
    "@wrapped": _array(2**64 - LARGE, b"|u1", LARGE),
    "@product": _array(0, b"<f8", 2**32, 2**32),
    "@objects": _array(0, b"|O", LARGE),
    "@crumb": _array(0, b"|u1", 0),
    "@again": b"\x95" + _array(0, b"|u1", LARGE) * 5,
    "@text": _bytes(0, 1 << 40),
}


def _told(value: Any) -> Any:
    """`value` with what begins with an at-sign replaced."""
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    if isinstance(value, str) and value.startswith("@id"):
        return current_call().number + int(value[3:] or 0)
    return msgspec.Raw(RAW[value]) if isinstance(value, str) and value in RAW else value


class Steps:
    """Each method is one word of the catalogue."""

    def __init__(self) -> None:
        self.answers = 3

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.answers, data) :]

    def send(self, text: str) -> None:
        self._write(bytes.fromhex(text))

    def repeat(self, text: str, count: int) -> None:
        for _ in range(count):
            self._write(bytes.fromhex(text) * 65536)

    def messages(self, *messages: dict[str, Any]) -> None:
        payloads = [msgspec.msgpack.encode(_told(message)) for message in messages]
        self._write(b"".join(len(payload).to_bytes(4, "big") + payload for payload in payloads))

    def parts(self, count: int) -> None:
        self.messages(*[{"id": "@id", "part": number} for number in range(count)])

    def trailed(self, text: str, message: dict[str, Any]) -> None:
        payload = msgspec.msgpack.encode(_told(message))
        self._write(len(payload).to_bytes(4, "big") + payload + bytes.fromhex(text))

    def truncated(self, message: dict[str, Any]) -> None:
        payload = msgspec.msgpack.encode(_told(message))
        self._write(len(payload).to_bytes(4, "big") + payload[:-1])

    def pickled(self) -> None:
        self._write(len(PICKLE).to_bytes(4, "big") + PICKLE)

    def drip(self, seconds: float, message: dict[str, Any]) -> None:
        payload = msgspec.msgpack.encode(_told(message))
        for byte in len(payload).to_bytes(4, "big") + payload:
            self._write(bytes([byte]))
            time.sleep(seconds)

    def stderr(self, count: int) -> None:
        for _ in range(count // 65536):
            os.write(2, b"x" * 65536)

    def lull(self, seconds: float) -> None:
        time.sleep(seconds)

    def hang_up(self) -> None:
        os.closerange(3, 6)


@expose
def play(steps: list[list[Any]]) -> None:
    words = Steps()
    for word, *arguments in steps:
        getattr(words, word)(*arguments)
    time.sleep(60)


@expose
def echo(req):  # type: ignore[no-untyped-def]
    return req


@expose
def count(n: int):  # type: ignore[no-untyped-def]
    yield from range(n)


if __name__ == "__main__":
    run_worker()
