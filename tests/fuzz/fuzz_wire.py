"""Mutates the golden vectors and feeds them to both ends of a channel, whole and in pieces.

Any bytes either give events or raise RemoteProtocolError, and the chunking changes nothing; each body that is
let through decodes or is refused. The seed and the number of the case are printed with a failure, so that
`--seed S --start N --count 1` plays it again.

Run: python tests/fuzz/fuzz_wire.py --count 100000 --seed 1
"""

from __future__ import annotations

import argparse
import datetime as dt
import decimal
import importlib
import importlib.util
import itertools
import random
import struct
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy

from pyproc_wire.codec import JSON, MESSAGEPACK
from pyproc_wire.errors import RemoteProtocolError

PLAY = Path(__file__).parent.parent / "vectors" / "wire_play.py"
_spec = importlib.util.spec_from_file_location("wire_play", PLAY)
assert _spec is not None and _spec.loader is not None
play = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(play)

EDGES = (
    0x00,
    0x7F,
    0x80,
    0x8F,
    0x90,
    0xA0,
    0xC0,
    0xC1,
    0xC4,
    0xC7,
    0xC9,
    0xCA,
    0xCF,
    0xD3,
    0xD8,
    0xDB,
    0xDD,
    0xDF,
    0xFF,
)
"""Bytes at which MessagePack changes its meaning."""


def mutated(raw: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`raw` with one to four changes; half of the time the first header is made to fit again."""
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed)) if changed else 0
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[at] = rng.choice(EDGES)
        elif kind == 2:
            del changed[at : at + rng.randint(1, 8)]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 4:
            other = rng.choice(others)
            changed[at:at] = other[rng.randrange(len(other) + 1) :]
        else:
            changed[at:at] = changed[at : at + rng.randint(1, 32)] * rng.randint(1, 4)
    if len(changed) > 4 and rng.random() < 0.5:
        changed[:4] = struct.pack(">I", len(changed) - 4)
    return bytes(changed)


def pieces(raw: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randint(1, 6)))
    bounds = [0, *cuts, len(raw)]
    parts = [raw[low:high] for low, high in itertools.pairwise(bounds)]
    return [part for part in parts if part]  # an empty chunk would mean the end of the connection


def check(expected: dict[str, Any], raw: bytes, rng: random.Random) -> None:
    """Play `raw` whole and in pieces; AssertionError or any other exception is a finding."""
    if not raw:
        return
    connection = play.opened(expected)
    events, code = play.outcome(connection, [raw])
    assert play.outcome(play.opened(expected), pieces(raw, rng)) == (events, code), "the chunking changed the outcome"
    for event in events:
        if event.get("body"):
            decoded(connection, event["body"])


def decoded(codec: Any, raw: bytes) -> None:
    """The value of `raw` is read to its end, or the peer is blamed."""
    try:
        value = codec.value(raw) if hasattr(codec, "value") else codec.decode_value(raw)
    except RemoteProtocolError:
        return
    repr(value)  # reads each item: a view that is not safe fails here


def values() -> list[bytes]:
    """Values of each kind that is carried, as seeds: what a channel never looks into, a caller does."""
    moment = dt.datetime(2024, 10, 27, 2, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)), fold=1)
    samples: list[Any] = [
        [1, -1, 2**64 - 1, 1.5, "text", b"bytes", None, True],
        {"tuple": (1, (2,)), "set": {1, 2}, "frozen": frozenset({"a"}), 3: {(1, 2): "pair"}},
        [moment, moment.date(), moment.time(), dt.timedelta(-1, 2, 3), decimal.Decimal("1.50"), uuid.UUID(int=5), 1j],
        numpy.arange(6, dtype=">i2").reshape(2, 3),
        [numpy.array(["ab", "c"]), numpy.array([True]), numpy.float32(1), numpy.str_("x"), numpy.datetime64("2024")],
    ]
    return [MESSAGEPACK.encode_value(sample) for sample in samples]


def case(rng: random.Random, vectors: list[tuple[dict[str, Any], bytes]], samples: list[bytes]) -> None:
    """One forged stream for a channel or, one time in three, one forged value for the codecs."""
    if rng.randrange(3) == 0:
        forged = mutated(rng.choice(samples), samples, rng)
        title = "a value"
    else:
        expected, raw = rng.choice(vectors)
        forged = mutated(raw, [other for _, other in vectors], rng)
        title = expected["title"]
    try:
        if title == "a value":
            decoded(MESSAGEPACK, forged)
            decoded(JSON, forged)
        else:
            check(expected, forged, rng)
    except BaseException as error:
        error.add_note(f"from {title!r}: {forged.hex()}")
        raise


def run(count: int, seed: int, start: int = 0) -> None:
    """Play cases `start` to `start + count`; raises at the first finding."""
    vectors = play.expectations("valid") + play.expectations("invalid")
    samples = values()
    for number in range(start, start + count):
        try:
            case(random.Random(seed * 1_000_003 + number), vectors, samples)
        except BaseException as error:
            error.add_note(f"play it again: --seed {seed} --start {number} --count 1")
            raise


def guided(arguments: list[str]) -> None:
    """Let atheris choose the bytes, guided by coverage. Needs atheris, which is no dependency of ours."""
    atheris = importlib.import_module("atheris")
    vectors = play.expectations("valid") + play.expectations("invalid")

    def one(raw: bytes) -> None:
        if raw:
            check(vectors[raw[0] % len(vectors)][0], raw[1:], random.Random(len(raw)))
            decoded(MESSAGEPACK, raw[1:])

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="mutates the golden vectors and plays them to both ends")
    parser.add_argument("--count", type=int, default=10_000, help="cases to play")
    parser.add_argument("--seed", type=int, help="the seed of all cases; without it one is drawn and printed")
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--atheris", nargs=argparse.REMAINDER, help="guided by atheris; its options follow")
    chosen = parser.parse_args(arguments)
    if chosen.atheris is not None:
        if importlib.util.find_spec("atheris") is None:
            parser.error("atheris is not installed: leave --atheris out for the mutations of this program")
        guided(chosen.atheris)
        return 0
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    run(chosen.count, seed, chosen.start)
    print(f"{chosen.count} cases from {chosen.start}: no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
