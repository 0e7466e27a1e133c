"""Bad messages: what can be told from the next message is refused alone, the rest ends the connection."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyproc_wire.connection import (
    JSON,
    MESSAGEPACK,
    BadRequest,
    Called,
    CancelRequested,
    Codec,
    CreditGranted,
    State,
    WorkerConnection,
)
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.frame import frame
from pyproc_wire.limits import CREDIT_MAX

REQUEST = {"id": 1, "method": "add", "body": {"a": 1}}


@pytest.fixture(params=[MESSAGEPACK, JSON], ids=str)
def codec(request: pytest.FixtureRequest) -> Codec:
    chosen: Codec = request.param
    return chosen


def packed(codec: Codec, *messages: Any) -> bytes:
    encode = msgspec.msgpack.encode if codec is MESSAGEPACK else msgspec.json.encode
    return b"".join(frame(encode(message)) for message in messages)


def opened(codec: Codec) -> WorkerConnection:
    worker = WorkerConnection(codec)
    worker.ready({})
    return worker


def refusal(worker: WorkerConnection, *messages: Any) -> BadRequest:
    event = worker.receive(packed(worker.codec, *messages))[-1]
    assert isinstance(event, BadRequest)
    assert event.code == "invalid_argument"
    assert worker.state is State.OPEN
    return event


@pytest.mark.parametrize(
    "message",
    [
        {"id": 5},
        {"id": 5, "method": 1},
        {"id": 5, "method": None},
        {**REQUEST, "id": 5, "extra": 1},
        {**REQUEST, "id": 5, "type": "request"},
        {**REQUEST, "id": 5, "deadline_ms": -1},
        {**REQUEST, "id": 5, "deadline_ms": 2**63},
        {**REQUEST, "id": 5, "deadline_ms": 1.0},
        {**REQUEST, "id": 5, "stream": 1},
        {**REQUEST, "id": 5, "headers": {"a": 1}},
        {**REQUEST, "id": 5, "headers": ["a"]},
        {**REQUEST, "id": 5, "api_key": 1},
        {**REQUEST, "id": 5, "traceparent": []},
        {"id": 5, "ok": True, "body": 1},
        {"type": "request", "payload": {"id": 5, "method": 1}},
        {"type": "request", "payload": {"id": 5, "type": "request", "payload": REQUEST}},
    ],
    ids=str,
)
def test_a_message_with_a_valid_id_is_refused_under_it(codec: Codec, message: dict[str, Any]) -> None:
    worker = opened(codec)
    assert refusal(worker, message).id == 5
    assert worker.failure(5, "invalid_argument", "refused")
    assert not worker.open_calls


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"method": "add"},
        {**REQUEST, "id": None},
        {**REQUEST, "id": -1},
        {**REQUEST, "id": "1"},
        {**REQUEST, "id": True},
        {**REQUEST, "id": 1.0},
        {"type": "shutdown", "payload": {}},
        {"type": 1, "payload": {}},
        {"type": "cancellation"},
        {"type": "cancellation", "payload": {}},
        {"type": "cancellation", "payload": {"id": 1, "force": True}},
        {"type": "cancellation", "payload": {"id": 1, "reason": 1}},
        {"type": "cancellation", "payload": {"id": 1, "reason": "ä" * 513}},
        {"type": "cancellation", "payload": {"id": 1}, "extra": 1},
        {"type": "credit", "payload": {"id": 1}},
        {"type": "credit", "payload": {"id": 1, "n": 0}},
        {"type": "credit", "payload": {"id": 1, "n": CREDIT_MAX + 1}},
        {"type": "credit", "payload": {"id": 1, "n": 1.0}},
        {"type": "request", "payload": {}},
        {"type": "request", "payload": [1]},
        {"type": "request", "payload": None},
        {"type": "request"},
    ],
    ids=lambda message: str(message)[:60],
)
def test_a_message_without_a_valid_id_is_refused_and_open_calls_go_on(codec: Codec, message: dict[str, Any]) -> None:
    worker = opened(codec)
    assert refusal(worker, REQUEST, message).id is None
    assert list(worker.open_calls) == [1]
    assert worker.failure(None, "invalid_argument", "refused")
    assert worker.success(1, None)


def test_an_id_beyond_64_bits_is_no_id() -> None:
    worker = opened(JSON)
    assert refusal(worker, {"id": 2**64, "method": "add"}).id is None
    assert refusal(worker, {"id": 10**40, "method": 1}).id is None
    assert not worker.open_calls


@pytest.mark.parametrize("again", [REQUEST, {**REQUEST, "extra": 1}, {"type": "request", "payload": REQUEST}], ids=str)
def test_an_id_already_open_is_refused_without_an_id(codec: Codec, again: dict[str, Any]) -> None:
    worker = opened(codec)
    assert refusal(worker, REQUEST, again).id is None
    assert list(worker.open_calls) == [1]


def test_an_id_may_be_used_again_after_its_answer(codec: Codec) -> None:
    worker = opened(codec)
    worker.receive(packed(codec, REQUEST))
    worker.success(1, None)
    assert isinstance(worker.receive(packed(codec, REQUEST))[0], Called)


def test_a_map_whose_keys_are_not_text_is_refused_alone() -> None:
    assert refusal(opened(MESSAGEPACK), {1: 2}).id is None


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x01",
        b"\x91\x01",
        b"\xc0",
        b"\xa1x",
        b"\x81",
        b"\x81\xa2id\x01\x01",
        b"\x81\xa2id\xc1",
        b"\x91" * 5000,
    ],
    ids=lambda payload: payload[:8].hex(),
)
def test_what_is_no_whole_map_ends_the_connection(payload: bytes) -> None:
    worker = opened(MESSAGEPACK)
    with pytest.raises(RemoteProtocolError) as breach:
        worker.receive(packed(MESSAGEPACK, REQUEST) + frame(payload))
    assert (breach.value.id, breach.value.code) == (None, "invalid_argument")
    assert [type(event) for event in breach.value.before] == [Called]
    assert worker.state is State.CLOSED
    assert worker.failure(None, breach.value.code, str(breach.value))
    with pytest.raises(LocalProtocolError):
        worker.success(1, None)


def test_a_bad_body_is_found_when_its_value_is_asked_for(codec: Codec) -> None:
    worker = opened(codec)
    deep: Any = 0
    for _ in range(65):
        deep = [deep]
    (event,) = worker.receive(packed(codec, {"id": 1, "method": "add", "body": deep}))
    assert isinstance(event, Called)
    with pytest.raises(RemoteProtocolError, match="deeper than 64"):
        worker.value(event.body)
    assert worker.failure(1, "invalid_argument", "body is too deep")


def test_a_missing_body_is_null(codec: Codec) -> None:
    worker = opened(codec)
    (event,) = worker.receive(packed(codec, {"id": 1, "method": "add"}))
    assert isinstance(event, Called)
    assert worker.value(event.body) is None


def test_cancellations_and_credits_for_unknown_ids_are_ignored(codec: Codec) -> None:
    worker = opened(codec)
    worker.receive(packed(codec, REQUEST))
    assert worker.receive(packed(codec, {"type": "cancellation", "payload": {"id": 9}})) == []
    assert worker.receive(packed(codec, {"type": "credit", "payload": {"id": 9, "n": 1}})) == []
    assert worker.receive(packed(codec, {"type": "credit", "payload": {"id": 1, "n": 1}})) == [], "not a stream"


def test_a_cancellation_of_an_open_call_names_its_reason(codec: Codec) -> None:
    worker = opened(codec)
    worker.receive(packed(codec, REQUEST))
    message = {"type": "cancellation", "payload": {"id": 1, "reason": "r" * 1024}}
    assert worker.receive(packed(codec, message)) == [CancelRequested(1, "r" * 1024)]
    assert list(worker.open_calls) == [1]


def test_credits_add_up_to_the_cap(codec: Codec) -> None:
    worker = opened(codec)
    worker.receive(packed(codec, {**REQUEST, "stream": True}))
    assert worker.window(1) == 16
    assert worker.receive(packed(codec, {"type": "credit", "payload": {"id": 1, "n": 8}})) == [CreditGranted(1, 8)]
    assert worker.window(1) == 24
    worker.receive(packed(codec, {"type": "credit", "payload": {"id": 1, "n": CREDIT_MAX}}))
    assert worker.window(1) == CREDIT_MAX
    assert worker.window(2) == 0


def test_a_failure_of_any_text_can_be_sent(codec: Codec) -> None:
    worker = opened(codec)
    worker.receive(packed(codec, REQUEST))
    raw = worker.failure(1, "function_failed", "\ud800ä" * 5000, path="$." + "ü" * 400)
    sent = (msgspec.msgpack if codec is MESSAGEPACK else msgspec.json).decode(raw[4:])
    assert len(sent["error"].encode()) <= 4096
    assert len(sent["path"]) == 256


@pytest.mark.parametrize(("code", "bound"), [("worker_lost", None), ("SystemExit", None), ("internal", "queue")])
def test_codes_and_bounds_that_are_not_a_workers_are_our_mistake(code: str, bound: str | None) -> None:
    worker = opened(MESSAGEPACK)
    worker.receive(packed(MESSAGEPACK, REQUEST))
    with pytest.raises(LocalProtocolError):
        worker.failure(1, code, "x", bound=bound)
    assert list(worker.open_calls) == [1]
