"""What a hostile worker may say: fields that belong together, a worker's codes, bounded texts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyproc_wire.codes import CODES, WORKER_CODES
from pyproc_wire.connection import (
    JSON,
    MESSAGEPACK,
    BriefSuccess,
    CallerConnection,
    Codec,
    Failed,
    Ready,
    Report,
    State,
    Succeeded,
    WorkerConnection,
)
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.frame import frame

READY = {"ready": {"functions": {}}}
SUCCESS: dict[str, Any] = {"id": 1, "ok": True, "body": 3}
FAILURE: dict[str, Any] = {"id": 1, "ok": False, "error": "broke", "code": "function_failed"}
PART: dict[str, Any] = {"id": 1, "part": 3}


def packed(message: Any) -> bytes:
    return frame(msgspec.msgpack.encode(message))


def opened(*, stream: bool = False) -> CallerConnection:
    caller = CallerConnection()
    caller.receive(packed(READY))
    caller.request(1, "add", None, stream=stream)
    return caller


@pytest.mark.parametrize(
    "message",
    [
        {**SUCCESS, "part": 1},
        {**SUCCESS, "error": ""},
        {**SUCCESS, "code": "internal"},
        {**SUCCESS, "path": "$"},
        {**SUCCESS, "bound": "memory"},
        {**SUCCESS, "public": True},
        {**SUCCESS, "report": {"type": "E", "traceback": ""}},
        {**SUCCESS, **READY},
        {"id": 1, "ok": True},
        {**FAILURE, "body": 1},
        {**FAILURE, "part": 1},
        {**FAILURE, **READY},
        {"id": 1, "ok": False, "code": "internal"},
        {**PART, "output": 1},
        {**PART, "code": "internal"},
        {**PART, **READY},
        {"id": 1, "body": 1},
        {"id": 1, "ok": None, "body": 1},
        {"id": 1},
        {},
        {**READY, "output": 1},
        {**FAILURE, "report": {"type": "E"}},
        {**FAILURE, "report": {"type": "E", "traceback": "", "more": 1}},
        {**FAILURE, "report": {"type": "E" * 257, "traceback": ""}},
        {**FAILURE, "report": {"type": "E", "traceback": "x" * 65_537}},
        *({**FAILURE, "report": {"type": "E", "traceback": "", "refused": refused}} for refused in (
            {}, {"errno": 0}, {"errno": 4096}, {"errno": "1"}, {"errno": 1, "more": 1}, {"errno": 1, "path": "x" * 4097},
            {"errno": 1, "path": "é" * 2049}, {"errno": 1, "asked": "not a name"}, {"errno": 1, "asked": "x" * 65},
            {"errno": 1, "asked": ""})),
        {**FAILURE, "error": "ä" * 2049},
        {**FAILURE, "path": "$" * 257},
        {**FAILURE, "bound": "queue"},
        {**FAILURE, "bound": "everything"},
        {**FAILURE, "output": 2**63},
        {**SUCCESS, "output": 1.5},
    ],
    ids=lambda message: str(message)[:70],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_forged_answer_ends_the_connection(message: dict[str, Any], stream: bool) -> None:
    caller = opened(stream=stream)
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed(message))
    assert caller.state is State.CLOSED
    assert list(caller.open_calls) == [1], "the call is lost, and known to be"


@pytest.mark.parametrize("code", [*sorted(CODES), "SystemExit", "", "Internal"])
def test_only_a_workers_codes_pass(code: str) -> None:
    caller = opened()
    if code in WORKER_CODES:
        (event,) = caller.receive(packed({**FAILURE, "code": code}))
        assert isinstance(event, Failed)
        assert event.code == code
    else:
        with pytest.raises(RemoteProtocolError):
            caller.receive(packed({**FAILURE, "code": code}))


def test_control_characters_in_a_failure_are_escaped() -> None:
    (event,) = opened().receive(packed({**FAILURE, "error": "a\nb\x1b[31m\u202e\u2028ü\u00a0", "path": "$\n"}))
    assert isinstance(event, Failed)
    assert event.error == "a\\nb\\x1b[31m\\u202e\\u2028ü\u00a0"
    assert event.path == "$\\n"


def test_a_stream_that_had_parts_ends_without_a_body() -> None:
    caller = opened(stream=True)
    caller.receive(packed(PART))
    with pytest.raises(RemoteProtocolError, match="ends with a body"):
        caller.receive(packed(SUCCESS))
    alone = opened(stream=True)
    assert isinstance(alone.receive(packed(SUCCESS))[0], Succeeded)


def test_a_cancelled_call_is_open_until_its_answer() -> None:
    caller = opened()
    assert msgspec.msgpack.decode(caller.cancel(1, "\ud800" * 2000)[4:])["payload"]["id"] == 1
    assert caller.cancel(1)
    assert len(caller.receive(packed(SUCCESS))) == 1
    with pytest.raises(LocalProtocolError):
        caller.cancel(1)


@pytest.mark.parametrize("n", [0, -1, 65_536])
def test_a_credit_out_of_range_is_our_mistake(n: int) -> None:
    with pytest.raises(LocalProtocolError):
        opened(stream=True).credit(1, n)
    with pytest.raises(LocalProtocolError):
        opened().credit(1, 1)


@pytest.mark.parametrize("id", [1, -1, 2**64])
def test_an_id_that_cannot_be_opened_is_our_mistake(id: int) -> None:
    caller = opened()
    with pytest.raises(LocalProtocolError):
        caller.request(id, "add", None)
    assert list(caller.open_calls) == [1]


@pytest.mark.parametrize("deadline", [-1, 2**63])
def test_a_deadline_out_of_range_is_our_mistake(deadline: int) -> None:
    with pytest.raises(LocalProtocolError):
        opened().request(2, "add", None, deadline_ms=deadline)


def test_a_raw_body_is_passed_on_as_it_is() -> None:
    caller, worker = opened(), WorkerConnection()
    worker.ready({})
    for id, body in ((2, msgspec.Raw(b"\x93\x01\x02\x03")), (3, msgspec.Raw(b""))):
        (called,) = worker.receive(caller.request(id, "add", body))
        assert bytes(called.body) == bytes(body)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "ready",
    [
        None,
        [],
        {},
        {"functions": []},
        {"functions": {1: 2}},
        {"functions": {}, "more": 1},
        msgspec.msgpack.Ext(99, b""),
    ],
    ids=lambda ready: str(ready).partition(" object at ")[0],  # an address would differ between processes
)
def test_a_forged_ready_ends_the_connection(ready: Any) -> None:
    caller = CallerConnection()
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed({"ready": ready}))
    assert caller.state is State.CLOSED


@pytest.mark.parametrize("codec", [MESSAGEPACK, JSON], ids=str)
def test_a_call_goes_there_and_back_in_either_codec(codec: Codec) -> None:
    caller, worker = CallerConnection(codec), WorkerConnection(codec)
    (ready,) = caller.receive(worker.ready({"add": {"stream": False}}))
    assert ready == Ready({"add": {"stream": False}})
    raw = caller.request(7, "add", {"a": 1}, deadline_ms=50, tenant="acme", principal="ann")
    (called,) = worker.receive(raw)
    assert (called.id, called.method, called.deadline_ms) == (7, "add", 50)  # type: ignore[union-attr]
    assert (called.tenant, called.principal) == ("acme", "ann")  # type: ignore[union-attr]
    assert worker.value(called.body) == {"a": 1}  # type: ignore[union-attr]
    (done,) = caller.receive(worker.success(7, [1], output=3))
    assert isinstance(done, Succeeded)
    assert (caller.value(done.body), done.output) == ([1], 3)
    worker.receive(caller.request(8, "add", None))
    report = Report("ValueError", "x" * 70_000 + "the end")
    (failed,) = caller.receive(
        worker.failure(8, "resource_exhausted", "full", bound="memory", public=True, report=report, output=2)
    )
    assert isinstance(failed, Failed)
    assert (failed.code, failed.error, failed.bound, failed.public, failed.output) == (
        "resource_exhausted",
        "full",
        "memory",
        True,
        2,
    )
    assert failed.report is not None
    assert failed.report.traceback.endswith("the end")


@pytest.mark.parametrize(
    "message",
    [
        {**SUCCESS, "ok": False},
        {**SUCCESS, "id": 2},
        {**SUCCESS, "output": -1},
        {"id": 1, "ok": True},
        {**SUCCESS, "error": "x"},
        FAILURE,
    ],
)
def test_the_short_way_leaves_what_is_no_plain_success(message: dict[str, Any]) -> None:
    caller = opened()
    assert caller.brief(packed(message)) is None
    assert list(caller.open_calls) == [1]
    assert caller.brief(packed(SUCCESS)) == BriefSuccess(1, True, 3)


def test_nothing_comes_the_short_way_after_the_end() -> None:
    caller = opened()
    caller.request(2, "add", None)
    with pytest.raises(RemoteProtocolError):
        caller.receive(packed({**SUCCESS, "id": 9}))
    assert caller.brief(packed(SUCCESS)) is None


def test_nothing_is_brief_while_a_frame_is_under_way() -> None:
    """What looks like a whole frame is the inside of another one."""
    caller, worker = opened(), WorkerConnection()
    inner = packed(SUCCESS)
    assert caller.receive((len(inner) + 1000).to_bytes(4, "big")) == []
    assert caller.brief(inner) is None
    worker.ready({})
    request = opened().request(7, "add", None)
    assert worker.receive((len(request) + 1000).to_bytes(4, "big")) == []
    assert worker.brief(request) is None


def test_a_stream_is_never_ended_the_short_way() -> None:
    caller = opened(stream=True)
    assert caller.brief(packed(SUCCESS)) is None
    assert caller.receive(packed(SUCCESS)) == [Succeeded(1, True, msgspec.Raw(b"\x03"))]
    assert caller.request(2, "add", None)
    assert caller.brief(packed({**SUCCESS, "id": 2})) is not None
