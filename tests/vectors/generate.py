"""Writes the golden vectors: `valid/NNN.bin` and `invalid/NNN.bin`, each with its expectation `NNN.json`.

The bytes are made with msgspec and struct alone, never with pyproc_wire: a vector that the code under test
wrote would agree with whatever it does. `test_vectors` fails when a file differs from what this writes.

An expectation has `title`, `role` (whose end receives the bytes: `caller` or `worker` of a worker's channel,
or `server`, the public form of contract section 7), `ready` (whether the worker's Ready came before), `calls`
(the calls that are open before), `codec` of the bodies of a server, and then `events` (valid) or `code`
(invalid).

Run: python tests/vectors/generate.py
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
LIMIT = 4096
"""Bytes: the limit of both ends while a vector is played, so that an oversize vector stays small."""

FUNCTIONS = {"add": {"input": {}, "output": {}, "stream": False, "timeout": None, "idempotent": False}}
READY = {"ready": {"functions": FUNCTIONS}}


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def packed(*messages: Any) -> bytes:
    return b"".join(framed(msgspec.msgpack.encode(message)) for message in messages)


def calls(*ids: int, stream: bool = False) -> list[dict[str, Any]]:
    return [{"id": id, "stream": stream} for id in ids]


def batch(items: int) -> list[dict[str, Any]]:
    """Call 1, which asks for `items` items."""
    return [{"id": 1, "stream": False, "batch": items}]


def caller(title: str, raw: bytes, open_calls: list[dict[str, Any]], *, ready: bool = True, **then: Any) -> Any:
    return raw, {"title": title, "role": "caller", "ready": ready, "calls": open_calls, **then}


def worker(title: str, raw: bytes, **then: Any) -> Any:
    return raw, {"title": title, "role": "worker", "ready": True, "calls": [], **then}


def server(title: str, raw: bytes, *, codec: str = "json", **then: Any) -> Any:
    return raw, {"title": title, "role": "server", "codec": codec, "ready": False, "calls": [], **then}


def said(*messages: Any) -> bytes:
    """The messages in JSON."""
    return b"".join(framed(json.dumps(message).encode()) for message in messages)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"event": kind, **fields}


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def control(kind: str, **payload: Any) -> dict[str, Any]:
    return {"type": kind, "payload": payload}


BIG = 2**64 - 1

VALID = [
    caller("ready", packed(READY), [], ready=False, events=[event("Ready", functions=FUNCTIONS)]),
    caller(
        "a success",
        packed({"id": 1, "ok": True, "body": 3}),
        calls(1),
        events=[event("Succeeded", id=1, body=3, output=0)],
    ),
    caller(
        "a success with null",
        packed({"id": 1, "ok": True, "body": None}),
        calls(1),
        events=[event("Succeeded", id=1, body=None)],
    ),
    caller(
        "a success that counts output",
        packed({"id": 1, "ok": True, "body": {"k": [1, 2.5, "x", None, True]}, "output": 12}),
        calls(1),
        events=[event("Succeeded", id=1, body={"k": [1, 2.5, "x", None, True]}, output=12)],
    ),
    caller(
        "fields in another order",
        packed({"body": "late id", "ok": True, "id": 9}),
        calls(9),
        events=[event("Succeeded", id=9, body="late id")],
    ),
    caller(
        "the largest id",
        packed({"id": BIG, "ok": True, "body": BIG}),
        calls(BIG),
        events=[event("Succeeded", id=BIG, body=BIG)],
    ),
    caller(
        "two answers in one chunk, out of order",
        packed({"id": 2, "ok": True, "body": "b"}, {"id": 1, "ok": True, "body": "a"}),
        calls(1, 2),
        events=[event("Succeeded", id=2, body="b"), event("Succeeded", id=1, body="a")],
    ),
    caller(
        "a failure",
        packed({"id": 1, "ok": False, "error": "processing failed", "code": "function_failed"}),
        calls(1),
        events=[event("Failed", id=1, code="function_failed", error="processing failed", public=False)],
    ),
    caller(
        "a failure with all its fields",
        packed(
            {
                "id": 1,
                "ok": False,
                "error": "out of memory at $.rows[2]",
                "code": "resource_exhausted",
                "path": "$.rows[2]",
                "bound": "memory",
                "public": True,
                "report": {"type": "MemoryError", "traceback": "Traceback …"},
                "output": 3,
            }
        ),
        calls(1),
        events=[
            event(
                "Failed",
                id=1,
                code="resource_exhausted",
                path="$.rows[2]",
                bound="memory",
                public=True,
                output=3,
            )
        ],
    ),
    caller(
        "a stream of two parts and its end",
        packed({"id": 4, "part": 1}, {"id": 4, "part": [2]}, {"id": 4, "ok": True, "body": None}),
        calls(4, stream=True),
        events=[
            event("Part", id=4, body=1),
            event("Part", id=4, body=[2]),
            event("Succeeded", id=4, body=None),
        ],
    ),
    caller(
        "a stream that fails after a part",
        packed({"id": 4, "part": 1}, {"id": 4, "ok": False, "error": "broke", "code": "function_failed"}),
        calls(4, stream=True),
        events=[event("Part", id=4, body=1), event("Failed", id=4, code="function_failed")],
    ),
    caller(
        "a stream call answered at once",
        packed({"id": 4, "ok": True, "body": 7}),
        calls(4, stream=True),
        events=[event("Succeeded", id=4, body=7)],
    ),
    caller(
        "a body at the greatest depth",
        packed({"id": 1, "ok": True, "body": nested(64)}),
        calls(1),
        events=[event("Succeeded", id=1, body=nested(64))],
    ),
    worker(
        "a request",
        packed({"id": 1, "method": "add", "body": {"a": 1}}),
        events=[event("Called", id=1, method="add", body={"a": 1}, stream=False)],
    ),
    worker(
        "a request without a body",
        packed({"id": 1, "method": "add"}),
        events=[event("Called", id=1, method="add", body=None)],
    ),
    worker(
        "a request with all fields of a link",
        packed(
            {
                "id": 8,
                "method": "predict",
                "body": [1, 2],
                "deadline_ms": 2**63 - 1,
                "stream": True,
                "tenant": "acme",
                "principal": "ann",
            }
        ),
        events=[
            event(
                "Called",
                id=8,
                method="predict",
                body=[1, 2],
                deadline_ms=2**63 - 1,
                stream=True,
                tenant="acme",
                principal="ann",
            )
        ],
    ),
    worker(
        "a request in its envelope",
        packed(control("request", id=3, method="add", body=5)),
        events=[event("Called", id=3, method="add", body=5)],
    ),
    worker(
        "a cancellation",
        packed({"id": 1, "method": "add"}, control("cancellation", id=1, reason="gone")),
        events=[event("Called", id=1), event("CancelRequested", id=1, reason="gone")],
    ),
    worker(
        "a credit",
        packed({"id": 1, "method": "count", "stream": True}, control("credit", id=1, n=65_535)),
        events=[event("Called", id=1, stream=True), event("CreditGranted", id=1, n=65_535)],
    ),
    worker("a cancellation of an id that is not open", packed(control("cancellation", id=77)), events=[]),
    worker("a credit for an id that is not open", packed(control("credit", id=77, n=1)), events=[]),
    server(
        "a public request in JSON",
        said({"id": 1, "method": "scoring/predict", "body": {"value": 42}}),
        events=[event("Called", id=1, method="scoring/predict", body={"value": 42}, stream=False)],
    ),
    server(
        "a public request in MessagePack",
        packed({"id": 1, "method": "predict", "body": {"value": 42}}),
        codec="msgpack",
        events=[event("Called", id=1, method="predict", body={"value": 42})],
    ),
    server(
        "a public request with all its options",
        said(
            {
                "id": BIG,
                "method": "predict",
                "body": "ü",
                "deadline_ms": 0,
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "api_key": "key",
                "jwt": "token",
                "idempotency_key": "once",
                "headers": {"a": "b"},
                "stream": True,
            }
        ),
        events=[event("Called", id=BIG, body="ü", deadline_ms=0, stream=True)],
    ),
    server(
        "a public request in its envelope",
        said(control("request", id=3, method="add", body=[1.5, None])),
        events=[event("Called", id=3, method="add", body=[1.5, None])],
    ),
    server(
        "a public stream, its credit and its cancellation",
        said(
            {"id": 1, "method": "tokens", "stream": True},
            control("credit", id=1, n=8),
            control("cancellation", id=1, reason="gone"),
        ),
        events=[
            event("Called", id=1, body=None, stream=True),
            event("CreditGranted", id=1, n=8),
            event("CancelRequested", id=1, reason="gone"),
        ],
    ),
    server(
        "space within a payload",
        framed(b'{ "id" : 1 ,\n"method": "m" } '),
        events=[event("Called", id=1, method="m")],
    ),
    server(
        "a bad message between two good ones",
        said({"id": 1, "method": "m"}, {"id": 2, "metod": "m"}, {"id": 3, "method": "m"}),
        events=[
            event("Called", id=1),
            event("BadRequest", id=2, code="invalid_argument"),
            event("Called", id=3),
        ],
    ),
    server(
        "an id already open is refused with null",
        said({"id": 1, "method": "m"}, {"id": 1, "method": "n"}),
        events=[event("Called", id=1), event("BadRequest", id=None, code="invalid_argument")],
    ),
    server(
        "a message without an id is refused with null",
        said({"id": 1, "method": "m"}, {"method": "n"}, {"type": "credit", "payload": {"id": 1, "n": 0}}),
        events=[
            event("Called", id=1),
            event("BadRequest", id=None, code="invalid_argument"),
            event("BadRequest", id=None, code="invalid_argument"),
        ],
    ),
    worker(
        "a batch",
        packed({"id": 1, "method": "add", "body": [1, 2], "batch": 2}),
        events=[event("Called", id=1, method="add", body=[1, 2], batch=2)],
    ),
    caller(
        "a batch, answered in parts and not to its end",
        packed({"id": 1, "part": {"results": [1, 2]}}, {"id": 1, "part": {"value": [3]}}, {"id": 1, "ok": True, "body": None}),
        batch(4),
        events=[event("Answered", id=1, values=[1, 2]), event("Answered", id=1, values=[[3]]), event("Succeeded", id=1, body=None)],
    ),
    caller(
        "the failure of an item",
        packed({"id": 1, "part": {"failure": {"error": "broke", "code": "function_failed"}}}),
        batch(1),
        events=[event("Answered", id=1, values=[])],
    ),
]

ANSWER = {"id": 1, "ok": True, "body": 3}
REQUEST = {"id": 1, "method": "add", "body": 3}

INVALID = [
    caller("an answer before ready", packed(ANSWER), [], ready=False, code="invalid_argument"),
    caller("a second ready", packed(READY), [], code="invalid_argument"),
    caller("ready with an id", packed({**READY, "id": 1}), [], ready=False, code="invalid_argument"),
    caller(
        "ready whose functions are a list",
        packed({"ready": {"functions": []}}),
        [],
        ready=False,
        code="invalid_argument",
    ),
    caller("an answer to a call never made", packed(ANSWER), [], code="invalid_argument"),
    caller("an answer to a foreign id", packed({**ANSWER, "id": 2}), calls(1), code="invalid_argument"),
    caller("a second answer", packed(ANSWER, ANSWER), calls(1), code="invalid_argument"),
    caller("a part of a call that is no stream", packed({"id": 1, "part": 0}), calls(1), code="invalid_argument"),
    caller(
        "a part after the end",
        packed({**ANSWER, "id": 4}, {"id": 4, "part": 0}),
        calls(4, stream=True),
        code="invalid_argument",
    ),
    caller("an answer without ok", packed({"id": 1, "body": 3}), calls(1), code="invalid_argument"),
    caller("an answer without id", packed({"ok": True, "body": 3}), calls(1), code="invalid_argument"),
    caller("an id that is null", packed({**ANSWER, "id": None}), calls(1), code="invalid_argument"),
    caller("an id that is text", packed({**ANSWER, "id": "1"}), calls(1), code="invalid_argument"),
    caller("an id that is negative", packed({**ANSWER, "id": -1}), calls(1), code="invalid_argument"),
    caller("ok that is a number", packed({**ANSWER, "ok": 1}), calls(1), code="invalid_argument"),
    caller("an unknown field", packed({**ANSWER, "extra": 0}), calls(1), code="invalid_argument"),
    caller(
        "a success with an error",
        packed({**ANSWER, "error": "x", "code": "internal"}),
        calls(1),
        code="invalid_argument",
    ),
    caller(
        "a success that is a part too",
        packed({**ANSWER, "part": 0}),
        calls(1, stream=True),
        code="invalid_argument",
    ),
    caller(
        "a failure without a code",
        packed({"id": 1, "ok": False, "error": "x"}),
        calls(1),
        code="invalid_argument",
    ),
    caller(
        "a failure with a code outside the set",
        packed({"id": 1, "ok": False, "error": "x", "code": "SystemExit"}),
        calls(1),
        code="invalid_argument",
    ),
    caller(
        "a failure with a code that is not a worker's",
        packed({"id": 1, "ok": False, "error": "x", "code": "unauthenticated"}),
        calls(1),
        code="invalid_argument",
    ),
    caller(
        "a failure with a body",
        packed({"id": 1, "ok": False, "error": "x", "code": "internal", "body": 1}),
        calls(1),
        code="invalid_argument",
    ),
    caller("output that is negative", packed({**ANSWER, "output": -1}), calls(1), code="invalid_argument"),
    caller(
        "bytes after the map",
        framed(msgspec.msgpack.encode(ANSWER) + b"\xc0"),
        calls(1),
        code="invalid_argument",
    ),
    caller(
        "a map that is cut short",
        framed(msgspec.msgpack.encode(ANSWER)[:-1]),
        calls(1),
        code="invalid_argument",
    ),
    caller("a list in place of a map", packed([1, True, 3]), calls(1), code="invalid_argument"),
    caller("an empty frame", framed(b""), calls(1), code="invalid_argument"),
    caller("the byte that MessagePack never uses", framed(b"\xc1"), calls(1), code="invalid_argument"),
    caller("a frame beyond the limit", struct.pack(">I", LIMIT + 1), calls(1), code="payload_too_large"),
    caller("the longest frame that can be named", b"\xff\xff\xff\xff", calls(1), code="payload_too_large"),
    worker("an empty frame", framed(b""), code="invalid_argument"),
    worker("a frame beyond the limit", struct.pack(">I", LIMIT + 1), code="payload_too_large"),
    worker("an undecodable payload", framed(b"\xc1"), code="invalid_argument"),
    worker("a request that is cut short", framed(msgspec.msgpack.encode(REQUEST)[:-1]), code="invalid_argument"),
    worker("bytes after the request", framed(msgspec.msgpack.encode(REQUEST) + b"\xc0"), code="invalid_argument"),
    worker("a request without a method", packed({"id": 1}), code="invalid_argument"),
    worker("a method that is a number", packed({"id": 1, "method": 5}), code="invalid_argument"),
    worker("a request without an id", packed({"method": "add"}), code="invalid_argument"),
    worker("an unknown field", packed({**REQUEST, "extra": 0}), code="invalid_argument"),
    worker("a deadline that is negative", packed({**REQUEST, "deadline_ms": -1}), code="invalid_argument"),
    worker("a deadline beyond 63 bits", packed({**REQUEST, "deadline_ms": 2**63}), code="invalid_argument"),
    worker("stream that is a number", packed({**REQUEST, "stream": 1}), code="invalid_argument"),
    worker("an id already open", packed(REQUEST, REQUEST), code="invalid_argument"),
    worker("a type outside the set", packed(control("shutdown", id=1)), code="invalid_argument"),
    worker("a credit of nothing", packed(control("credit", id=1, n=0)), code="invalid_argument"),
    worker("a credit beyond the cap", packed(control("credit", id=1, n=65_536)), code="invalid_argument"),
    worker(
        "a cancellation with an unknown field",
        packed(control("cancellation", id=1, force=True)),
        code="invalid_argument",
    ),
    worker("an answer on the way to the worker", packed(ANSWER), code="invalid_argument"),
    server("a first payload that is a list", said([1]), code="invalid_argument"),
    server("a first payload that begins with space", framed(b' {"id":1,"method":"m"}'), code="invalid_argument"),
    server("a first payload in the words of HTTP", framed(b"GET / HTTP/1.1"), code="invalid_argument"),
    server("a first frame that is empty", framed(b""), code="invalid_argument"),
    server("a first frame beyond the limit", struct.pack(">I", LIMIT + 1), code="payload_too_large"),
    server(
        "MessagePack after JSON",
        said({"id": 1, "method": "m"}) + packed({"id": 2, "method": "m"}),
        code="invalid_argument",
    ),
    server(
        "JSON after MessagePack",
        packed({"id": 1, "method": "m"}) + said({"id": 2, "method": "m"}),
        codec="msgpack",
        code="invalid_argument",
    ),
    server("two documents in one frame", framed(b'{"id":1,"method":"m"}{}'), code="invalid_argument"),
    server("text that is not UTF-8", framed(b'{"id":1,"method":"m","body":"\xff"}'), code="invalid_argument"),
    server("a lone surrogate", framed(b'{"id":1,"method":"m","body":"\\ud800"}'), code="invalid_argument"),
    server(
        "a number that JSON does not know",
        framed(b'{"id":1,"method":"m","body":NaN}'),
        code="invalid_argument",
    ),
    server("an id beyond 64 bits", said({"id": 2**64, "method": "m"}), code="invalid_argument"),
    server(
        "a tenant that a client claims",
        said({"id": 1, "method": "m", "tenant": "acme"}),
        code="invalid_argument",
    ),
    server(
        "a header that is no text",
        said({"id": 1, "method": "m", "headers": {"a": 1}}),
        code="invalid_argument",
    ),
    caller("more answers than items", packed({"id": 1, "part": {"results": [1, 2]}}), batch(1), code="invalid_argument"),
    caller("a batch that ends with no answer", packed({"id": 1, "ok": True, "body": None}), batch(1), code="invalid_argument"),
    caller("a part of a batch that is no map", packed({"id": 1, "part": [1]}), batch(1), code="invalid_argument"),
    server("a batch that a client asks for", said({"id": 1, "method": "m", "body": [1], "batch": 1}), code="invalid_argument"),
]


def contents() -> dict[str, bytes]:
    """Every file this program writes, by its path relative to this folder."""
    files: dict[str, bytes] = {}
    for folder, vectors in (("valid", VALID), ("invalid", INVALID)):
        for number, (raw, expected) in enumerate(vectors, start=1):
            text = json.dumps(expected, indent=2, ensure_ascii=False) + "\n"
            files[f"{folder}/{number:03}.bin"] = raw
            files[f"{folder}/{number:03}.json"] = text.encode()
    return files


def main() -> None:
    files = contents()
    for path, content in files.items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_bytes(content)
    for folder in ("valid", "invalid"):
        for stale in (HERE / folder).iterdir():
            if f"{folder}/{stale.name}" not in files:
                stale.unlink()


if __name__ == "__main__":
    main()
