"""Plays bytes into one end of a channel and tells what came out, in a form that two runs can be compared in.

Shared by the vectors, the property tests and the fuzz harness. Only RemoteProtocolError is caught: whatever
else leaves `receive` is a bug in the code under test and ends the run.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pyproc_wire.codec import MESSAGEPACK
from pyproc_wire.connection import Called, CallerConnection, ServerConnection, WorkerConnection
from pyproc_wire.errors import RemoteProtocolError

LIMIT = 4096
"""Bytes: the limit of both ends, as `generate.LIMIT`."""

FIELDS = (
    "id",
    "method",
    "body",
    "deadline_ms",
    "stream",
    "batch",
    "values",
    "tenant",
    "principal",
    "code",
    "error",
    "path",
    "bound",
    "public",
    "output",
    "reason",
    "n",
    "functions",
)

HERE = Path(__file__).parent


def expectations(folder: str) -> list[tuple[dict[str, Any], bytes]]:
    """Each vector of `valid` or `invalid`: what is expected, and the bytes."""
    return [
        (json.loads(path.read_text()), path.with_suffix(".bin").read_bytes())
        for path in sorted((HERE / folder).glob("*.json"))
    ]


def ready_frame() -> bytes:
    payload = msgspec.msgpack.encode({"ready": {"functions": {}}})
    return struct.pack(">I", len(payload)) + payload


def opened(expected: dict[str, Any]) -> CallerConnection | WorkerConnection:
    """The end that receives the vector, in the state the vector asks for."""
    if expected["role"] == "server":
        return ServerConnection(request_limit=LIMIT, response_limit=LIMIT)
    if expected["role"] == "worker":
        worker = WorkerConnection(MESSAGEPACK, LIMIT, LIMIT)
        worker.ready({})
        return worker
    caller = CallerConnection(MESSAGEPACK, limit=LIMIT, request_limit=LIMIT)
    if expected["ready"]:
        caller.receive(ready_frame())
        for call in expected["calls"]:
            caller.request(call["id"], "add", None, stream=call["stream"], batch=call.get("batch", 0))
    return caller


def outcome(connection: CallerConnection | WorkerConnection, chunks: Iterable[bytes]) -> tuple[list[Any], str | None]:
    """The events in order, then the code of the violation that ended it, if one did."""
    events: list[Any] = []
    for chunk in chunks:
        try:
            events += connection.receive(chunk)
        except RemoteProtocolError as error:
            events += error.before
            return [described(event) for event in events], error.code
    return [described(event) for event in events], None


def described(event: Any, *, body: bool = True) -> dict[str, Any]:
    """`event` as a map; a body, if it is wanted, is its bytes."""
    kind = "Called" if isinstance(event, Called) else type(event).__name__  # a Called is the message itself
    found: dict[str, Any] = {"event": kind}
    for name in FIELDS:
        if hasattr(event, name) and (body or name != "body"):
            value = getattr(event, name)
            found[name] = bytes(value) if name == "body" else value
    return found


def body_of(raw: bytes, codec: str) -> Any:
    """A body's value, decoded by msgspec alone; an absent body is null."""
    decode = msgspec.json.decode if codec == "json" else msgspec.msgpack.decode
    return decode(raw) if raw else None
