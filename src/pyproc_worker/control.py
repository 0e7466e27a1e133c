"""The control messages of a tree that starts: 4 bytes of length, big-endian, then JSON."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NoReturn

from pyproc_worker.door import CONTROL

FRAME_LIMIT = 64 << 20  # bytes; a plan holds the script's source and two filters


def receive_frame(channel: socket.socket) -> Any:
    """One control message. Ends the process at end-of-file."""
    length = int.from_bytes(_exactly(channel, 4), "big")
    if length > FRAME_LIMIT:
        os._exit(70)
    return json.loads(_exactly(channel, length))


def send_frame(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one control message; the supervisor bounds what it accepts."""
    payload = json.dumps(message).encode()
    channel.sendall(len(payload).to_bytes(4, "big") + payload)


def fail(layer: str, text: str) -> NoReturn:
    """Report that `layer` could not be applied, and end: nothing runs with less than the plan."""
    send_frame(socket.socket(fileno=os.dup(CONTROL)), {"failed": {"layer": layer, "text": text}})
    os._exit(70)


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        chunk = channel.recv(min(count - len(parts), 65536))
        if not chunk:
            os._exit(0)
        parts += chunk
    return bytes(parts)
