"""What may be exposed, and how a body becomes arguments."""

from __future__ import annotations

import datetime
import functools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy
import pytest

from pyproc_worker.failure import refused_body
from pyproc_worker.misfit import InvalidBody
from pyproc_worker.registry import Function, Registry


def exposed(fn: Callable[..., Any], **options: Any) -> Function:
    registry = Registry()
    registry.add(fn, **options)
    found = registry.lookup(options.get("name") or fn.__name__)
    assert found is not None
    return found


def refused(fn: Callable[..., Any], body: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InvalidBody) as caught:
        exposed(fn, **options).bind(body)
    return caught.value.text, caught.value.path


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Place:
    name: str
    points: list[Point]
    weights: dict[str, float]


def whole(req: dict[str, Any]) -> None: ...
def untyped(req): ...  # type: ignore[no-untyped-def]
def place(req: Place) -> None: ...
def area(width: float, height: float = 2.0) -> float: ...  # type: ignore[empty-body]
def keyword(*, x: int) -> None: ...
def nothing() -> None: ...
def optional(req: int = 7) -> None: ...
def dated(day: datetime.date, raw: bytes) -> None: ...
def evented(x: int, cancel_event: threading.Event) -> None: ...
def deep(rows: list[dict[str, dict[str, int]]]) -> None: ...
def tables(req: dict[str, dict[str, int]]) -> None: ...


@pytest.mark.parametrize(
    ("fn", "body", "bound"),
    [
        (whole, {"a": 1}, (({"a": 1},), {})),
        (untyped, [1], (([1],), {})),
        (place, {"name": "a", "points": [{"x": 1}], "weights": {}}, ((Place("a", [Point(1)], {}),), {})),
        (area, {"width": 1}, ((1.0, 2.0), {})),
        (keyword, {"x": 1}, ((), {"x": 1})),
        (nothing, None, ((), {})),
        (nothing, {}, ((), {})),
        (optional, None, ((), {})),
        (optional, 3, ((), {"req": 3})),
        (dated, {"day": datetime.date(2026, 1, 2), "raw": b"x"}, ((datetime.date(2026, 1, 2), b"x"), {})),
        (dated, {"day": "2026-01-02", "raw": b"x"}, ((datetime.date(2026, 1, 2), b"x"), {})),
        (evented, 5, ((), {"x": 5})),
    ],
)
def test_a_body_becomes_arguments(fn: Callable[..., Any], body: Any, bound: Any) -> None:
    assert exposed(fn).bind(body) == bound


@pytest.mark.parametrize(
    ("fn", "body", "path"),
    [
        (whole, [1], "$"),
        (whole, {1: 1}, "$"),
        (area, {}, "$.width"),
        (area, {"width": "1"}, "$.width"),
        (area, {"width": 1, "depth": 1}, "$.depth"),
        (area, {"width": 1, "a b": 1}, '$["a b"]'),
        (area, None, "$.width"),
        (area, [1, 2], "$"),
        (dated, {"day": "2026-01-02", "raw": "aGk="}, "$.raw"),
        (dated, {"day": "soon", "raw": b""}, "$.day"),
        (nothing, 1, "$"),
        (evented, "x", "$"),
        (place, {"name": "a", "points": [{"x": 1}, {"y": 2}], "weights": {}}, "$.points[1].x"),
        (place, {"name": "a", "points": [], "weights": {"ok": 1, "not ok": "w"}}, '$.weights["not ok"]'),
        (tables, {"a": {"x": 1}, "b": {"x": 1, "y": "2", "z": 3}, "c": {}}, "$.b.y"),
    ],
)
def test_a_wrong_body_is_refused_with_its_path(fn: Callable[..., Any], body: Any, path: str) -> None:
    assert refused(fn, body)[1] == path


def chosen(c: Literal["a", "b"], more: dict[str, Literal[1, 2]] | None = None) -> None: ...
def counted(x: Annotated[int, msgspec.Meta(le=3)]) -> None: ...
def numbered(req: dict[int, str]) -> None: ...
def pair(req: tuple[int, Literal["x"]]) -> None: ...
def bounded(req: Point | None) -> None: ...


@pytest.mark.parametrize(("fn", "body", "told"), [
    (chosen, {"c": "z"}, "invalid enum value 'z' (allowed: 'a', 'b') at $.c"),
    (chosen, {"c": "a", "more": {"k": 3}}, "invalid enum value 3 (allowed: 1, 2) at $.more.k"),
    (pair, [1, "y"], "invalid enum value 'y' (allowed: 'x') at $[1]"),
    (area, {"Width": 1, "width": 1}, "key is unknown (known: width, height) at $.Width"),
    (area, {"width": "1" * 50}, f"expected `float`, got `str` '{'1' * 40}'… at $.width"),
    (area, {"width": True}, "expected `float`, got `bool` True at $.width"),
    (area, {1: 2}, "expected `str`, got `int` 1 as a key at $"),
    (whole, {1: 2}, "expected `str`, got `int` 1 as a key at $"),
    (numbered, {"x": "y"}, "expected `int`, got `str` as a key at $"),
    (counted, 5, "expected `int` <= 3, got `int` 5 at $"),
    (dated, {"day": "2026-01-02", "raw": "eA=="}, "expected `bytes`, which JSON does not carry, got `str` 'eA==' at $.raw"),
    (dated, {"day": "soon", "raw": b""}, "invalid RFC3339 encoded date, got `str` 'soon' at $.day"),
    (area, numpy.ones(3), "expected `object`, got `numpy.ndarray` at $"),
    (place, {"name": "a", "points": [numpy.ones(3)], "weights": {}}, "expected `object`, got `numpy.ndarray` at $.points[0]"),
    (bounded, {}, "key is missing at $.x"),
    (area, {"width": numpy.float64(2)}, "expected `float`, got `numpy.float64` at $.width"),
])  # fmt: skip
def test_a_refusal_names_what_stands_there_and_what_may(fn: Callable[..., Any], body: Any, told: str) -> None:
    assert refused(fn, body)[0] == told


def test_an_unknown_key_cannot_forge_the_text() -> None:
    text, path = refused(area, {"width": 1.0, "x\n` - at `$.y": 1})
    assert "\n" not in text and "\n" not in path


def test_the_words_of_a_type_that_refuses_stay_inside() -> None:
    class Guarded(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            raise ValueError("SECRET")

    def guarded(req: Guarded) -> None: ...
    guarded.__annotations__["req"] = Guarded
    assert refused(guarded, {"x": 1})[0] == "value is refused by its type at $"
    with pytest.raises(InvalidBody) as caught:
        exposed(guarded).bind({"x": 1})
    private, public = refused_body(caught.value), refused_body(caught.value, (ValueError,))
    assert (private.code, private.error, private.path) == ("invalid_argument", "value is refused by its type at $", "$")
    assert private.report is not None and "SECRET" in private.report.traceback
    assert (public.code, public.error, public.report) == ("invalid_argument", "SECRET at $", None)


def test_an_annotation_may_name_what_is_defined_further_down() -> None:
    registry = Registry()
    registry.add(unresolved)
    with pytest.raises(TypeError, match="'Nowhere', which is not defined"):
        registry.freeze()
    globals()["Nowhere"] = int
    try:
        registry.freeze()
        found = registry.lookup("unresolved")
        assert found is not None and found.bind(3) == ((3,), {})
    finally:
        del globals()["Nowhere"]


def test_what_is_not_resolved_yet_takes_no_body() -> None:
    registry = Registry()
    with pytest.raises(RuntimeError, match="freeze"):
        registry.add(unresolved).bind(3)


def test_parameters_may_have_any_name_and_order() -> None:
    def odd(__x: int, cancel_event: Any, self: int, *, def_: float = 2.0) -> None: ...

    assert exposed(odd).bind({"__x": 1, "self": 2}) == ((), {"__x": 1, "self": 2, "def_": 2.0})


class Adder:
    def __call__(self, x: int, y: int) -> int:
        return x + y


@pytest.mark.parametrize(
    ("fn", "body", "result"),
    [
        (Adder(), {"x": 1, "y": 2}, 3),
        (functools.partial(Adder(), 1), 2, 3),
        (functools.partial(Adder(), x=1), {"y": 2}, 3),
        (Adder().__call__, {"x": 1, "y": 2}, 3),
    ],
    ids=["object", "partial", "partial by keyword", "method"],
)
def test_whatever_is_called_like_a_function_is_one(fn: Callable[..., Any], body: Any, result: int) -> None:
    function = exposed(fn, name="add")
    arguments, named = function.bind(body)
    assert fn(*arguments, **named) == result


def test_health_is_the_workers_own() -> None:
    with pytest.raises(ValueError, match="every worker has one"):
        Registry().add(nothing, name="health")


def test_the_key_of_a_refused_value_is_found_wherever_it_stands() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(100):
        keys = [f"k {chance.randrange(10**6)}" for _ in range(chance.randrange(1, 60))]
        table: dict[str, Any] = {key: {"x": 1} for key in keys}
        bad = chance.choice(list(table))
        table[bad] = {"x": 1, "y": "text"}
        assert refused(tables, {"fine": {}, "t": table[bad]})[1] == "$.t.y"
        assert refused(deep, [table])[1] == f'$[0]["{bad}"].y'


def stars(*args: int) -> None: ...
def many(**kwargs: int) -> None: ...
def positional(x: int, /) -> None: ...
def unresolved(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def foreign(x: dict[str, Path]) -> None: ...
def uncheckable(x: int | Exception | Point) -> None: ...


@pytest.mark.parametrize("fn", [stars, many, positional, uncheckable, foreign, Point, 3])
def test_what_cannot_be_filled_is_refused_at_exposure(fn: Any) -> None:
    with pytest.raises(TypeError):
        Registry().add(fn)


@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "a/b"}, {"name": "a\nb"}, {"name": "x" * 129}, {"name": "a*"}, {"name": "é"},
     {"name": 3}, {"timeout": 0}, {"timeout": -1.0},
     {"timeout": True}, {"timeout": float("inf")}, {"timeout": float("nan")}, {"timeout": "1"}],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"use|give"):
        Registry().add(nothing, **options)


@pytest.mark.parametrize("kinds", [("ValueError",), (int,), 3])
def test_public_errors_are_exception_classes(kinds: Any) -> None:
    with pytest.raises(TypeError, match="give exception classes"):
        Registry().add(nothing, public_errors=kinds)


def test_twice_and_too_late_are_refused() -> None:
    registry = Registry()
    registry.add(nothing)
    with pytest.raises(ValueError, match="exposed twice"):
        registry.add(nothing)
    registry.freeze()
    with pytest.raises(ValueError, match="after the script was loaded"):
        registry.add(area)


def test_names_match_exactly() -> None:
    registry = Registry()
    registry.add(nothing, name="a.b")
    assert registry.lookup("a.b") is not None
    assert [registry.lookup(name) for name in ("a", "A.b", "a.b ", "nothing", "__init__")] == [None] * 5


def test_schemas_tell_what_is_checked() -> None:
    def clamp(x: Annotated[int, msgspec.Meta(ge=0)], y: float = 1.5) -> list[int]: ...  # type: ignore[empty-body]

    described = exposed(clamp, timeout=2.5, idempotent=True).describe()
    body = described["input"]
    assert body["properties"] == {"x": {"type": "integer", "minimum": 0}, "y": {"type": "number", "default": 1.5}}
    assert body["required"] == ["x"] and body["additionalProperties"] is False
    assert described["output"] == {"type": "array", "items": {"type": "integer"}}
    assert (described["timeout"], described["idempotent"], described["stream"]) == (2.5, True, False)


def test_schemas_promise_no_more_than_the_check_keeps() -> None:
    def mixed(raw: bytes, seen: set[int], rows: list[bytes], text: str) -> bytes: ...  # type: ignore[empty-body]

    described = exposed(mixed).describe()
    named = {"description": "bytes"}
    assert described["input"]["properties"] == {
        "raw": named, "seen": {"type": "array", "items": {"type": "integer"}}, "rows": {"type": "array", "items": named},
        "text": {"type": "string"}}  # fmt: skip
    assert described["output"] == named
    assert exposed(mixed).bind({"raw": b"x", "seen": [1, 1], "rows": [], "text": ""})[0][1] == {1}


def test_a_mutable_default_is_not_shared() -> None:
    def collect(x: int, seen: list[int] = []) -> None: ...  # noqa: B006

    function = exposed(collect)
    function.bind({"x": 1})[0][1].append(1)
    assert function.bind({"x": 1})[0][1] == []
