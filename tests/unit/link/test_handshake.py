"""A worker's introduction: one ready with well-formed functions, or a refusal that says what was wrong."""

from __future__ import annotations

from typing import Any

import pytest

from pyproc.link.handshake import FUNCTIONS_MAX, Refused, greet
from pyproc_wire.connection import CallerConnection, WorkerConnection

GOOD: dict[str, Any] = {"input": {}, "output": {"type": "integer"}, "stream": False, "timeout": 2.5, "idempotent": True}


def ready(functions: dict[str, Any]) -> bytes:
    return WorkerConnection().ready(functions)


def test_functions_are_told_once_the_greeting_is_complete() -> None:
    data, connection = ready({"f": GOOD, "g": {**GOOD, "timeout": None}}), CallerConnection()
    for byte in data[:-1]:
        assert greet(connection, bytes([byte])) is None
    found = greet(connection, data[-1:])
    assert found is not None and found["f"] == GOOD and found["g"]["timeout"] is None


@pytest.mark.parametrize("functions", [
    {"f": 3}, {"f": None}, {"": GOOD}, {"a\nb": GOOD}, {"x" * 129: GOOD}, {"f": {**GOOD, "more": 1}},
    {"f": {key: value for key, value in GOOD.items() if key != "timeout"}},
    *({"f": {**GOOD, "timeout": wrong}} for wrong in (0, -1, True, "2", float("inf"), float("nan"), [1])),
    *({"f": {**GOOD, field: wrong}} for field in ("stream", "idempotent") for wrong in (1, None, "yes")),
    *({"f": {**GOOD, field: wrong}} for field in ("input", "output") for wrong in (1, None, [])),
    {f"f{n}": GOOD for n in range(FUNCTIONS_MAX + 1)},
])  # fmt: skip
def test_a_malformed_description_is_refused(functions: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        greet(CallerConnection(limit=1 << 24), WorkerConnection(response_limit=1 << 24).ready(functions))


def test_more_than_ready_is_refused() -> None:
    with pytest.raises(Refused, match="not permitted"):
        greet(CallerConnection(), ready({}) + ready({}))


def test_the_begin_of_another_message_behind_ready_is_refused() -> None:
    """It would be put in front of the first answer, which comes over another descriptor."""
    with pytest.raises(Refused, match="more than ready"):
        greet(CallerConnection(), ready({}) + b"\x00\x00")


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\x80"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="not valid"):
        greet(CallerConnection(), data)
