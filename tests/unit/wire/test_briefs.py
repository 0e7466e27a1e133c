"""Brief answers that arrive together, and requests that are made before it is known of whom."""

from __future__ import annotations

import pytest

from pyproc_wire.codec import MESSAGEPACK
from pyproc_wire.connection import CallerConnection, WorkerConnection, plain_request
from pyproc_wire.errors import LocalProtocolError


@pytest.fixture
def ends() -> tuple[CallerConnection, WorkerConnection]:
    caller, worker = CallerConnection(), WorkerConnection()
    caller.receive(worker.ready({}))
    return caller, worker


def answers(caller: CallerConnection, worker: WorkerConnection, *values: object) -> list[bytes]:
    for id in range(1, len(values) + 1):
        frame = plain_request(MESSAGEPACK, id, "echo", None, 1000, 1 << 20)
        caller.expect(id)
        worker.receive(frame)
    return [worker.success(id, value) for id, value in enumerate(values, 1)]


def test_brief_answers_are_told_at_a_glance(ends: tuple[CallerConnection, WorkerConnection]) -> None:
    caller, worker = ends
    found = caller.briefs(b"".join(answers(caller, worker, 1, "two", None)))
    assert found is not None
    assert [(success.id, success.body) for success in found] == [(1, 1), (2, "two"), (3, None)]
    assert not caller.open_calls


@pytest.mark.parametrize("spoil", [
    lambda frames: [*frames, frames[0]],  # an answer twice
    lambda frames: [*frames, frames[0][:3]],
    lambda frames: [*frames[:2], frames[2][:-1]],
    lambda frames: [frames[0], frames[1][:-1] + b"\xc1", frames[2]],
    lambda frames: [],
], ids=["twice", "part of a header", "part of a frame", "no value", "nothing"])  # fmt: skip
def test_anything_else_is_left_to_receive(ends: tuple[CallerConnection, WorkerConnection], spoil: object) -> None:
    caller, worker = ends
    assert not caller.briefs(b"".join(spoil(answers(caller, worker, 1, 2, 3))))  # type: ignore[operator]
    assert list(caller.open_calls) == [1, 2, 3]


def test_a_long_answer_among_brief_ones_is_left_to_receive(ends: tuple[CallerConnection, WorkerConnection]) -> None:
    caller, worker = ends
    data = b"".join(answers(caller, worker, 1, "x" * 200))
    assert caller.briefs(data) is None
    assert [event.id for event in caller.receive(data)] == [1, 2]  # type: ignore[union-attr]


def test_a_request_is_the_same_whoever_makes_it(ends: tuple[CallerConnection, WorkerConnection]) -> None:
    caller, _ = ends
    for body in ({"a": [1, 2.5, None]}, b"x" * 70_000, None):
        frame = plain_request(MESSAGEPACK, 7, "echo", body, 1000, 1 << 20)
        assert frame == caller.request(7, "echo", body, 1000)
        caller.withdraw(7)


def test_an_id_is_expected_once(ends: tuple[CallerConnection, WorkerConnection]) -> None:
    caller, _ = ends
    caller.expect(7)
    with pytest.raises(LocalProtocolError, match="open already"):
        caller.expect(7)


def test_a_request_beyond_the_limit_is_not_made() -> None:
    with pytest.raises(LocalProtocolError, match="limit is 100"):
        plain_request(MESSAGEPACK, 1, "echo", "x" * 100, 1000, 100)
