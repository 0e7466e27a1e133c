"""A worker's introduction: one ready with well-formed functions, or a refusal that says what was wrong."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy
import pytest

from pyproc.link import schemas
from pyproc.link.handshake import FUNCTIONS_MAX, Refused, greet
from pyproc_wire.connection import CallerConnection, WorkerConnection
from pyproc_worker.registry import Registry

GOOD: dict[str, Any] = {"input": {}, "output": {"type": "integer"}, "stream": False, "timeout": 2.5, "idempotent": True}


def ready(functions: dict[str, Any]) -> bytes:
    return WorkerConnection().ready(functions)


def test_functions_are_told_once_the_greeting_is_complete() -> None:
    data, connection = ready({"f": GOOD, "g": {**GOOD, "timeout": None}}), CallerConnection()
    for byte in data[:-1]:
        assert greet(connection, bytes([byte]), {}) is None
    found = greet(connection, data[-1:], {})
    assert found is not None and found["f"] == GOOD and found["g"]["timeout"] is None


def test_what_was_accepted_before_is_given_back_and_nothing_that_only_equals_it() -> None:
    known = {"f": GOOD}
    assert greet(CallerConnection(), ready({"f": GOOD}), known) is known
    assert greet(CallerConnection(), ready({"f": {**GOOD, "idempotent": 1}}), known) is known
    other = {"f": {**GOOD, "timeout": 3.0}}
    assert greet(CallerConnection(), ready(other), known) == other


@pytest.mark.parametrize("functions", [
    {"f": 3}, {"f": None}, {"": GOOD}, {"a\nb": GOOD}, {"x" * 129: GOOD}, {"f": {**GOOD, "more": 1}},
    {"f": {key: value for key, value in GOOD.items() if key != "timeout"}},
    *({"f": {**GOOD, "timeout": wrong}} for wrong in (0, -1, True, "2", float("inf"), float("nan"), [1])),
    *({"f": {**GOOD, field: wrong}} for field in ("stream", "idempotent") for wrong in (1, None, "yes")),
    *({"f": {**GOOD, field: wrong}} for field in ("input", "output") for wrong in (1, None, [])),
    *({"f": {**GOOD, "output": wrong}} for wrong in (
        {"type": "integer\nhealth  call"}, {"type": b"x"}, {"type": None}, {"type": ["integer"]}, {"properties": 1},
        {"properties": {"a": 1}}, {"properties": {"a": True}}, {"properties": {"a\nb": {}}}, {"properties": {"a": {"type": "x"}}},
        {"properties": {1: {}}}, {"properties": {"x" * 2000: {}}}, {"required": 5}, {"required": ["\n"]}, {"$ref": 1}, {"$ref": "\n"},
        {"$defs": 5}, {"$defs": {"A": []}}, {"anyOf": {}}, {"anyOf": [1]}, {"items": 3}, {"items": {"type": "x"}}, {"enum": "x"},
        {"description": 1}, {"x": b"a"}, {"x": {1, 2}}, {"x": {1: 2}}, {1: 2}, {"anyOf": [[]]},
        {"x": [0] * schemas.VALUES_MAX})),
    {f"f{n}": {**GOOD, "input": {"enum": [0] * 1000}} for n in range(schemas.VALUES_MAX // 1000)},
    {f"f{n}": GOOD for n in range(FUNCTIONS_MAX + 1)},
])  # fmt: skip
def test_a_malformed_description_is_refused(functions: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        greet(CallerConnection(limit=1 << 24), WorkerConnection(response_limit=1 << 24).ready(functions), {})


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Part(msgspec.Struct, tag="part", forbid_unknown_fields=True):
    """Of several
    lines."""

    size: Annotated[float, msgspec.Meta(ge=0, description="a\nb", examples=[1.0], extra_json_schema={"x-own": {"y": [None]}})] = 0.5
    inner: Part | None = None
    when: datetime.datetime | None = None


class Other(msgspec.Struct, tag="other"):
    """The other one."""

    names: tuple[str, int]


class Listed(msgspec.Struct, array_like=True):
    """Written as a list."""

    names: list[str]
    more: int = 3


class Row(TypedDict, total=False):
    """A map."""

    key: Literal["a", "b"]
    rows: dict[uuid.UUID, list[decimal.Decimal]]


ANNOTATIONS = (
    int, float, str, bytes, bool, None, Any, list[int], tuple[int, ...], tuple[()], dict[str, Any], set[int], Kind, Part, Row, Listed,
    Part | Other | int, list[Row], datetime.timedelta, complex, numpy.ndarray, uuid.UUID,
    Annotated[str, msgspec.Meta(pattern="^a", max_length=3)],
)


def test_whatever_a_script_can_expose_is_a_schema() -> None:
    registry = Registry()
    for number, kind in enumerate(ANNOTATIONS):

        def function(one, two=float("nan"), *, three=()):  # type: ignore[no-untyped-def]
            return one

        function.__annotations__ = {"one": kind, "two": float, "three": tuple, "return": kind}
        registry.add(function, name=f"f{number}")
    registry.freeze()
    data = ready(registry.describe())
    assert greet(CallerConnection(), data, {}) is not None


def test_more_than_ready_is_refused() -> None:
    with pytest.raises(Refused, match="not permitted"):
        greet(CallerConnection(), ready({}) + ready({}), {})


def test_the_begin_of_another_message_behind_ready_is_refused() -> None:
    """It would be put in front of the first answer, which comes over another descriptor."""
    with pytest.raises(Refused, match="more than ready"):
        greet(CallerConnection(), ready({}) + b"\x00\x00", {})


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\x80"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="not valid"):
        greet(CallerConnection(), data, {})
