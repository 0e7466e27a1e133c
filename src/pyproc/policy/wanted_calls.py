"""The calls that a learning run makes, as they are written on a command line or in a file. Pure: text in, calls out.

    METHOD [BODY] METHOD [BODY] ...      BODY is JSON, and no JSON is a method's name unless it is true, false, null or a number
    FILE                                 a line of JSON for each call: {"method": "predict", "body": {"value": 42}}

Rejected: a Python script that makes the calls. It would run outside of the sandbox, once in every round.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from pyproc.errors import InvalidArgument
from pyproc.policy.observe import Call
from pyproc_wire.codec import JSON
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.texts import FUNCTION_NAME

CALLS_MAX: Final = 10_000


class CallsError(ValueError):
    """Words or lines that are no calls; the text says what is possible."""


def from_words(words: Sequence[str]) -> list[Call]:
    """`METHOD [BODY] ...`. Raises CallsError, InvalidArgument for a word that can be neither."""
    calls: list[Call] = []
    for word in words:
        body = _json(word)
        if body is None and FUNCTION_NAME.fullmatch(word) is None:
            raise InvalidArgument(f"{word[:80]!r} is neither JSON nor a function's name; write METHOD [BODY] METHOD [BODY] ..., each "
                                  "BODY quoted for the shell, such as '{\"value\": 1}'", path="$")
        if body is None:
            calls.append(Call(word))
        elif calls and calls[-1].body is None:
            calls[-1] = Call(calls[-1].method, body[0])
        else:
            raise CallsError(f"body {word[:80]!r} follows no method; write METHOD [BODY] METHOD [BODY] ...")
    return _some(calls)


def from_lines(text: str) -> list[Call]:
    """One JSON object a line. Raises CallsError naming the line."""
    calls: list[Call] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _json(line)
        value = found[0] if found is not None else None
        if not isinstance(value, dict) or not {"method"} <= value.keys() <= {"method", "body"} or not isinstance(value["method"], str):
            raise CallsError(f"line {number} is {line[:80]!r}; write " + json.dumps({"method": "predict", "body": {"value": 42}}))
        calls.append(Call(value["method"], value.get("body")))
    return _some(calls)


def _some(calls: list[Call]) -> list[Call]:
    if not 0 < len(calls) <= CALLS_MAX:
        raise CallsError(f"there are {len(calls)} calls, possible are 1 to {CALLS_MAX}; what is not called is not learnt")
    return calls


def _json(text: str) -> tuple[object] | None:
    """The value, None for what is no JSON."""
    try:
        return (JSON.decode_value(text.encode("utf-8", "surrogateescape")),)
    except RemoteProtocolError:
        return None
