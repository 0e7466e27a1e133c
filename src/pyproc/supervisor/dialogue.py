"""What a zygote may say on its control channel, and when. Pure: bytes in, messages out. The picture is in `pyproc_worker.boot`.

| phase | permitted | next phase |
|---|---|---|
| booting | {"applied": [layer, …]}, {"failed": {"layer", "text"}} | confined |
| confined | {"listener": n} | loading |
| loading | {"loaded": true}, {"failed": {"text", "refused"}} | serving |
| serving | {"fork_failed": errno} | serving |

Each message is 4 bytes of length, big-endian, then a JSON object. Once the script was imported all of it is hostile: it is
bounded, anything that is not in the table is a breach, and no message chooses a path, a name or a class. What is shown of it is one
line: only our own code tells that a layer could not be applied, and each line that the operator reads is ours.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, NamedTuple

import msgspec

from pyproc.config.options import LAYERS
from pyproc_wire.errors import printable
from pyproc_wire.limits import ASKED_CHARS, ERRNO_MAX, REFUSED_PATH_BYTES
from pyproc_wire.messages import Refused

MESSAGE_BYTES = 1 << 20  # the longest message that is accepted
REASON_CHARS = 500
UNSHARED = frozenset(layer.removesuffix("_namespace") for layer in LAYERS if layer.endswith("_namespace"))
"""Namespaces that are made by one call, of which nobody can tell which it was that failed: their names, joined."""
DESCRIPTOR_MAX = 1 << 20


_REFUSED = tuple[
    Annotated[int, msgspec.Meta(ge=1, le=ERRNO_MAX)],
    Annotated[str, msgspec.Meta(max_length=REFUSED_PATH_BYTES)] | None,
    Annotated[str, msgspec.Meta(max_length=ASKED_CHARS, pattern=r"^[A-Za-z_]\w*$")] | None,
]


class Breach(Exception):
    """The zygote said what it may not say; `before` holds the messages that came before it."""

    before: tuple[Message, ...] = ()


class Phase(Enum):
    BOOTING = "booting"
    CONFINED = "confined"
    LOADING = "loading"
    SERVING = "serving"


class Applied(NamedTuple):
    """The layers that pid 1 has applied to itself; nothing of the user's runs yet."""

    layers: frozenset[str]


class Offered(NamedTuple):
    """The listener's descriptor in pid 1; 0 without the layer seccomp."""

    descriptor: int


class Loaded(NamedTuple):
    """The script is imported."""


class LayerRefused(NamedTuple):
    """A layer of the plan could not be applied."""

    layer: str
    text: str


class ScriptFailed(NamedTuple):
    """The import raised; `text` is the traceback, `last` its last line, `refused` what the kernel refused the script."""

    text: str
    last: str
    refused: Refused | None = None


class ForkFailed(NamedTuple):
    """The fork that was asked for did not happen."""

    errno: int


Message = Applied | Offered | Loaded | LayerRefused | ScriptFailed | ForkFailed


class Dialogue:
    """One zygote's side of its control channel."""

    def __init__(self) -> None:
        self.phase = Phase.BOOTING
        self._buffer = b""

    def receive(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises Breach."""
        self._buffer += data
        messages: list[Message] = []
        try:
            while (payload := self._payload()) is not None:
                messages.append(self._message(payload))
        except Breach as breach:
            breach.before = tuple(messages)
            raise
        return messages

    def _payload(self) -> bytes | None:
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if length > MESSAGE_BYTES:
            raise Breach(f"the zygote announces {length} bytes, limit is {MESSAGE_BYTES}")
        if len(self._buffer) < 4 + length:
            return None
        payload, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
        return payload

    def _message(self, payload: bytes) -> Message:
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise Breach("the zygote's message is not a JSON object") from error
        if not isinstance(said, dict) or len(said) != 1:
            raise Breach("the zygote's message is not a JSON object of one key")
        [(kind, value)] = said.items()
        if kind == "applied" and self.phase is Phase.BOOTING and isinstance(value, list) and all(isinstance(v, str) for v in value):
            self.phase = Phase.CONFINED
            return Applied(frozenset(value))
        if kind == "listener" and self.phase is Phase.CONFINED and _whole(value, DESCRIPTOR_MAX):
            self.phase = Phase.LOADING
            return Offered(value)
        if kind == "loaded" and self.phase is Phase.LOADING and value is True:
            self.phase = Phase.SERVING
            return Loaded()
        if kind == "failed" and self.phase is Phase.BOOTING:
            return _layer_refused(value)
        if kind == "failed" and self.phase is Phase.LOADING:
            return _script_failed(value)
        if kind == "fork_failed" and self.phase is Phase.SERVING and _whole(value, ERRNO_MAX):
            return ForkFailed(value)
        raise Breach(f"the zygote speaks out of turn while {self.phase.value}")


def _layer_refused(told: object) -> LayerRefused:
    match told:
        case {"layer": str(layer), "text": str(text), **more} if not more:
            if layer in LAYERS or UNSHARED.issuperset(layer.split("/")):
                return LayerRefused(layer, printable(text, REASON_CHARS))
    raise Breach("the zygote's failure is not a layer's")


def _script_failed(told: object) -> ScriptFailed:
    match told:
        case {"text": str(text), "refused": refused, **more} if not more:
            return ScriptFailed(text, printable(text.strip().rpartition("\n")[2], REASON_CHARS), _refused(refused))
    raise Breach("the zygote's failure is not the script's")


def _refused(told: object) -> Refused | None:
    """The errno, path and asker, or nothing where it is not that: a failure is told however it is explained."""
    try:
        code, path, asked = msgspec.convert(told, _REFUSED)
    except msgspec.ValidationError:
        return None
    return Refused(code, path, asked)


def _whole(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
