"""Every row of the tables in `connection_state`: what is listed is accepted, what is not ends the connection.

The tables are walked by (state, message), so that a new row without its test is impossible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pyproc_wire.connection import CALL, FROM_WORKER, TO_WORKER, BadRequest, CallerConnection, State, WorkerConnection
from pyproc_wire.connection_state import ANSWERS, ASKINGS
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.frame import frame
from pyproc_wire.messages import ItemFailure

ANSWER: dict[str, dict[str, Any]] = {
    "ready": {"ready": {"functions": {}}},
    "success": {"id": 1, "ok": True, "body": None},
    "failure": {"id": 1, "ok": False, "error": "broke", "code": "function_failed"},
    "part": {"id": 1, "part": 0},
}
ASKING: dict[str, dict[str, Any]] = {
    "request": {"id": 1, "method": "add"},
    "cancellation": {"type": "cancellation", "payload": {"id": 1}},
    "credit": {"type": "credit", "payload": {"id": 1, "n": 1}},
}
SEND: dict[str, Callable[[CallerConnection], bytes]] = {
    "request": lambda caller: caller.request(2, "add", None),
    "cancellation": lambda caller: caller.cancel(1),
    "credit": lambda caller: caller.credit(1, 1),
}
ANSWER_WITH: dict[str, Callable[[WorkerConnection], bytes]] = {
    "ready": lambda worker: worker.ready({}),
    "success": lambda worker: worker.success(1, None),
    "failure": lambda worker: worker.failure(1, "function_failed", "broke"),
    "part": lambda worker: worker.part(1, 0),
}


def packed(message: dict[str, Any]) -> bytes:
    return frame(msgspec.msgpack.encode(message))


def caller_in(state: State, call: str = "stream") -> CallerConnection:
    caller = CallerConnection()
    if state is not State.NEW:
        caller.receive(packed(ANSWER["ready"]))
        if call != "unknown":
            caller.request(1, "add", None, stream=call == "stream")
    if state is State.CLOSED:
        caller.receive(b"")
    return caller


def worker_in(state: State, call: str = "stream") -> WorkerConnection:
    worker = WorkerConnection()
    if state is not State.NEW:
        worker.ready({})
        if call != "unknown":
            worker.receive(packed({"id": 1, "method": "add", "stream": call == "stream"}))
    if state is State.CLOSED:
        worker.receive(b"")
    return worker


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", ANSWERS)
def test_caller_receives_what_the_table_lists(state: State, kind: str) -> None:
    caller = caller_in(state)
    if kind in FROM_WORKER[state]:
        assert len(caller.receive(packed(ANSWER[kind]))) == 1
        assert caller.state is FROM_WORKER[state][kind]
        return
    with pytest.raises(LocalProtocolError if state is State.CLOSED else RemoteProtocolError):
        caller.receive(packed(ANSWER[kind]))
    assert caller.state is State.CLOSED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", ANSWERS)
def test_worker_sends_what_the_table_lists(state: State, kind: str) -> None:
    worker = worker_in(state)
    if kind in FROM_WORKER[state]:
        assert ANSWER_WITH[kind](worker)
        assert worker.state is FROM_WORKER[state][kind]
        return
    with pytest.raises(LocalProtocolError):
        ANSWER_WITH[kind](worker)
    assert worker.state is state


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", ASKINGS)
def test_caller_sends_what_the_table_lists(state: State, kind: str) -> None:
    caller = caller_in(state)
    if kind in TO_WORKER[state]:
        assert SEND[kind](caller)
        assert caller.state is TO_WORKER[state][kind]
        return
    with pytest.raises(LocalProtocolError):
        SEND[kind](caller)
    assert caller.state is state


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", ASKINGS)
def test_worker_receives_what_the_table_lists(state: State, kind: str) -> None:
    worker = worker_in(state, "unknown" if kind == "request" else "stream")
    if kind in TO_WORKER[state]:
        assert len(worker.receive(packed(ASKING[kind]))) == 1
        assert worker.state is TO_WORKER[state][kind]
        return
    with pytest.raises(LocalProtocolError if state is State.CLOSED else RemoteProtocolError):
        worker.receive(packed(ASKING[kind]))
    assert worker.state is State.CLOSED


@pytest.mark.parametrize("call", [call for call in CALL if call != "batch"])
@pytest.mark.parametrize("kind", ["success", "failure", "part"])
def test_answers_follow_what_the_call_is(call: str, kind: str) -> None:
    caller, worker = caller_in(State.OPEN, call), worker_in(State.OPEN, call)
    if kind in CALL[call]:
        assert len(caller.receive(packed(ANSWER[kind]))) == 1
        assert ANSWER_WITH[kind](worker)
        still_open = [1] if kind == "part" else []
        assert list(caller.open_calls) == list(worker.open_calls) == still_open
        return
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed(ANSWER[kind]))
    with pytest.raises(LocalProtocolError):
        ANSWER_WITH[kind](worker)


BATCH_ANSWER: dict[str, dict[str, Any]] = {
    "success": ANSWER["success"],
    "failure": ANSWER["failure"],
    "part": {"id": 1, "part": {"results": [1, 2]}},
    "ready": ANSWER["ready"],
}


def batch_of(items: int) -> tuple[CallerConnection, WorkerConnection]:
    caller, worker = caller_in(State.OPEN, "unknown"), worker_in(State.OPEN, "unknown")
    worker.receive(caller.request(1, "add", list(range(items)), batch=items))
    return caller, worker


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_batch_is_answered_as_the_table_lists(kind: str) -> None:
    caller, worker = batch_of(4)
    caller.receive(worker.items(1, [0]))
    if kind in CALL["batch"]:
        assert len(caller.receive(packed(BATCH_ANSWER[kind]))) == 1
        assert list(caller.open_calls) == ([1] if kind == "part" else [])
        return
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed(BATCH_ANSWER[kind]))


def test_a_batch_that_is_answered_in_parts_arrives_in_order() -> None:
    caller, worker = batch_of(5)
    failure = ItemFailure("broke", "function_failed", public=True)
    events = [event for frame in (worker.items(1, [1, 2]), worker.items(1, [], failure), worker.items(1, [[[4]]]))
              for event in caller.receive(frame)]
    assert [event.values for event in events] == [[1, 2], [], [[[4]]]]
    assert [getattr(event.failure, "error", None) for event in events] == [None, "broke", None]
    assert len(caller.receive(worker.success(1, None))) == 1  # the fifth did not begin
    assert not caller.open_calls and not worker.open_calls


def test_the_worker_cannot_answer_more_items_than_it_was_asked_for() -> None:
    _, worker = batch_of(2)
    with pytest.raises(LocalProtocolError):
        worker.items(1, [1, 2, 3])
    worker.items(1, [1, 2])
    with pytest.raises(LocalProtocolError):
        worker.items(1, [3])


@pytest.mark.parametrize("part", [
    {"results": [1, 2, 3]}, {"results": []}, {"results": 1}, {"results": {"a": 1}}, {}, 1, None, {"results": [1], "value": 1},
    {"value": 1, "failure": {"error": "e", "code": "function_failed"}}, {"failure": {"error": "e", "code": "no_such_code"}},
    {"failure": {"error": "e"}}, {"results": [1], "item": 0}, {"failure": None},
])
def test_a_part_of_a_batch_that_is_not_one_answer_to_each_of_its_items_is_a_breach(part: Any) -> None:
    caller, _ = batch_of(2)
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed({"id": 1, "part": part}))
    assert caller.state is State.CLOSED


def test_a_batch_that_ends_with_no_answer_or_with_a_body_is_a_breach() -> None:
    for parts, body in (([], None), ([{"results": [1, 2]}], [1, 2])):
        caller, _ = batch_of(2)
        for part in parts:
            caller.receive(packed({"id": 1, "part": part}))
        with pytest.raises(RemoteProtocolError):
            caller.receive(packed({"id": 1, "ok": True, "body": body}))


def test_a_part_after_the_end_of_a_batch_is_a_breach() -> None:
    caller, worker = batch_of(2)
    caller.receive(worker.items(1, [1]))
    caller.receive(worker.success(1, None))
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed({"id": 1, "part": {"value": 2}}))


def test_what_is_a_stream_and_a_batch_is_refused() -> None:
    worker = worker_in(State.OPEN, "unknown")
    (refused,) = worker.receive(packed({"id": 1, "method": "add", "body": [1], "stream": True, "batch": 1}))
    assert type(refused) is BadRequest and refused.id == 1


def test_the_seventeenth_part_without_credit_is_a_breach_at_both_ends() -> None:
    caller, worker = caller_in(State.OPEN), worker_in(State.OPEN)
    for _ in range(16):
        caller.receive(worker.part(1, 0))
    with pytest.raises(LocalProtocolError):
        worker.part(1, 0)
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed(ANSWER["part"]))


def test_one_credit_lets_one_more_part_pass() -> None:
    caller, worker = caller_in(State.OPEN), worker_in(State.OPEN)
    for _ in range(16):
        caller.receive(worker.part(1, 0))
    worker.receive(caller.credit(1, 1))
    assert len(caller.receive(worker.part(1, 0))) == 1
    with pytest.raises(LocalProtocolError):
        worker.part(1, 0)


def test_an_answer_before_a_breach_in_the_same_chunk_is_not_lost() -> None:
    caller = caller_in(State.OPEN, "plain")
    with pytest.raises(RemoteProtocolError) as breach:
        caller.receive(packed(ANSWER["success"]) * 2)
    assert [event.id for event in breach.value.before] == [1]


def test_a_success_that_cannot_be_sent_leaves_the_call_open() -> None:
    worker = WorkerConnection(response_limit=100)
    worker.ready({})
    worker.receive(packed(ASKING["request"]))
    with pytest.raises(LocalProtocolError) as refused:
        worker.success(1, "x" * 200)
    assert refused.value.code == "payload_too_large"
    with pytest.raises(LocalProtocolError):
        worker.success(1, object())
    assert worker.failure(1, "payload_too_large", "result is too large")


def test_a_request_that_cannot_be_sent_opens_nothing() -> None:
    caller = CallerConnection(request_limit=100)
    caller.receive(packed(ANSWER["ready"]))
    for body in ("x" * 200, object()):
        with pytest.raises(LocalProtocolError):
            caller.request(1, "add", body)
    assert not caller.open_calls


@pytest.mark.parametrize("cut", [0, 3, 9])
def test_the_end_says_whether_it_came_within_a_message(cut: int) -> None:
    caller = caller_in(State.OPEN, "plain")
    if cut:
        caller.receive(packed(ANSWER["success"])[:cut])
    (closed,) = caller.receive(b"")
    assert closed.mid_frame is bool(cut)  # type: ignore[union-attr]
    assert caller.state is State.CLOSED
