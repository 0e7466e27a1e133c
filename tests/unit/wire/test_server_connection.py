"""The public form of the language (contract sections 7 and 10), as a stand-alone worker speaks it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pyproc_wire.connection import (
    JSON,
    MESSAGEPACK,
    BadRequest,
    Called,
    Codec,
    ConnectionClosed,
    ServerConnection,
    State,
)
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.frame import frame

REQUEST = {"id": 1, "method": "predict", "body": {"value": 42}}


def packed(message: Any, codec: Codec = JSON) -> bytes:
    return frame(json.dumps(message).encode() if codec is JSON else msgspec.msgpack.encode(message))


def sent(raw: bytes) -> Any:
    assert int.from_bytes(raw[:4], "big") == len(raw) - 4
    return json.loads(raw[4:])


@pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=str)
def test_the_first_byte_of_the_first_payload_chooses_the_codec(codec: Codec) -> None:
    server = ServerConnection()
    (event,) = server.receive(packed(REQUEST, codec))
    assert isinstance(event, Called)
    assert server.codec is codec
    assert server.value(event.body) == {"value": 42}
    raw = server.success(1, {"result": 84})
    answer = sent(raw) if codec is JSON else msgspec.msgpack.decode(raw[4:])
    assert answer == {"id": 1, "ok": True, "body": {"result": 84}}


def test_a_large_messagepack_map_is_one_too() -> None:
    server = ServerConnection()
    payload = b"\xde\x00\x02\xa2id\x01\xa6method\xa1m"
    assert isinstance(server.receive(frame(payload))[0], Called)
    assert server.codec is MESSAGEPACK


@pytest.mark.parametrize("payload", [b"[1]", b" {}", b"\x91\x01", b"\xc0", b"GET / HTTP/1.1", b"\xff", b"1"])
def test_any_other_first_payload_is_answered_in_json_and_is_the_end(payload: bytes) -> None:
    server = ServerConnection()
    with pytest.raises(RemoteProtocolError) as breach:
        server.receive(frame(payload))
    assert server.state is State.CLOSED
    answer = sent(server.failure(None, breach.value.code, str(breach.value)))
    assert (answer["id"], answer["ok"], answer["code"]) == (None, False, "invalid_argument")


@pytest.mark.parametrize(("raw", "code"), [(b"\x00" * 4, "invalid_argument"), (b"\xff" * 4, "payload_too_large")])
def test_a_bad_first_frame_is_answered_in_json(raw: bytes, code: str) -> None:
    server = ServerConnection()
    with pytest.raises(RemoteProtocolError) as breach:
        server.receive(raw)
    assert sent(server.failure(None, breach.value.code, str(breach.value)))["code"] == code


def test_a_codec_that_was_configured_is_the_only_one() -> None:
    with pytest.raises(RemoteProtocolError):
        ServerConnection(MESSAGEPACK).receive(packed(REQUEST))
    assert ServerConnection(JSON).receive(packed(REQUEST))


@pytest.mark.parametrize("second", [packed(REQUEST, MESSAGEPACK), frame(b"{"), frame(b'{"id":1}x'), frame(b"[]")])
def test_the_codec_stays_chosen_and_broken_payloads_are_the_end(second: bytes) -> None:
    server = ServerConnection()
    server.receive(packed({"id": 9, "method": "m"}))
    with pytest.raises(RemoteProtocolError):
        server.receive(second)
    assert server.state is State.CLOSED


def test_text_that_is_not_utf_8_is_undecodable_wherever_it_stands() -> None:
    server = ServerConnection()
    with pytest.raises(RemoteProtocolError, match="not valid json"):
        server.receive(frame(b'{"id":1,"method":"m","body":"\xff"}'))
    good = ServerConnection().receive(frame('{"id":1,"method":"m","body":"ü"}'.encode()))
    assert isinstance(good[0], Called)


@pytest.mark.parametrize("field", ["tenant", "principal"])
def test_who_calls_is_not_a_clients_to_say(field: str) -> None:
    server = ServerConnection()
    (event,) = server.receive(packed({**REQUEST, field: "root"}))
    assert isinstance(event, BadRequest)
    assert event.id == 1
    assert server.failure(1, event.code, event.error)


def test_the_options_of_a_request_arrive() -> None:
    options = {
        "deadline_ms": 0,
        "traceparent": "00-1-2-00",
        "api_key": "k",
        "jwt": "j",
        "idempotency_key": "i",
        "headers": {"a": "b"},
        "stream": True,
    }
    (event,) = ServerConnection().receive(packed({**REQUEST, **options}))
    assert {name: getattr(event, name) for name in options} == options


def test_a_failure_has_the_public_fields_only() -> None:
    server = ServerConnection()
    server.receive(packed(REQUEST))
    raw = server.failure(
        1,
        "unavailable",
        "Processing failed",
        public=True,
        output=7,
        error_id="e1",
        call="c1",
        reason="quarantined",
        retry_after=1.5,
        may_have_run=False,
        bound="queue",
        path="$.a",
    )
    assert sent(raw) == {
        "id": 1,
        "ok": False,
        "error": "Processing failed",
        "code": "unavailable",
        "error_id": "e1",
        "call": "c1",
        "path": "$.a",
        "bound": "queue",
        "reason": "quarantined",
        "retry_after": 1.5,
        "may_have_run": False,
    }


def test_a_stream_has_parts_and_ends_with_null() -> None:
    server = ServerConnection()
    server.receive(packed({**REQUEST, "stream": True}))
    assert sent(server.part(1, "a")) == {"id": 1, "part": "a"}
    assert sent(server.success(1, None, call="c1")) == {"id": 1, "ok": True, "body": None, "call": "c1"}


def test_requests_are_answered_in_any_order_and_the_end_keeps_the_open_ids() -> None:
    server = ServerConnection()
    raw = b"".join(packed({"id": id, "method": "m"}) for id in (1, 2, 3))
    assert [event.id for event in server.receive(raw)] == [1, 2, 3]  # type: ignore[union-attr]
    assert server.success(2, None)
    assert server.receive(b"") == [ConnectionClosed(mid_frame=False)]
    assert list(server.open_calls) == [1, 3]


def test_a_server_is_never_ready() -> None:
    with pytest.raises(LocalProtocolError):
        ServerConnection().ready({})


def test_an_answer_beyond_the_limit_is_ours_to_refuse() -> None:
    server = ServerConnection(response_limit=50)
    server.receive(packed(REQUEST))
    with pytest.raises(LocalProtocolError) as refused:
        server.success(1, "x" * 50)
    assert refused.value.code == "payload_too_large"
    assert sent(server.failure(1, "payload_too_large", str(refused.value), bound="response"))["bound"] == "response"


@pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=str)
def test_byte_at_a_time_equals_one_chunk(codec: Codec) -> None:
    raw = packed(REQUEST, codec) + packed({"id": 1}, codec) + packed({"type": "x", "payload": 0}, codec)
    single = ServerConnection()
    events = [event for at in range(len(raw)) for event in single.receive(raw[at : at + 1])]
    assert [str(event) for event in events[1:]] == [str(event) for event in ServerConnection().receive(raw)[1:]]
    assert [type(event) for event in events] == [Called, BadRequest, BadRequest]
