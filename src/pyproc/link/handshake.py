"""What a worker may say when it introduces itself: exactly one `ready`, whose functions are described as the registry does.

Hostile input: it comes from a process that has run the user's import. What is accepted here is shown to callers and decides
how long their calls may take, so that each field has its type.
"""

from __future__ import annotations

import math
from typing import Any

from pyproc.link import schemas
from pyproc_wire.connection import CallerConnection, Ready
from pyproc_wire.errors import WireError, printable
from pyproc_wire.texts import FUNCTION_NAME

FIELDS = {"input", "output", "stream", "timeout", "idempotent"}
FUNCTIONS_MAX = 10_000


class Refused(Exception):
    """What a worker said first is not a greeting."""


def greet(connection: CallerConnection, data: bytes, known: dict[str, Any]) -> dict[str, Any] | None:
    """Name -> description, once the greeting is complete; None before. `known` is what was accepted before, and given back where
    this is the same: the workers of a zygote all say the same. Raises Refused."""
    try:
        events = connection.receive(data)
    except WireError as error:
        raise Refused(f"its first message is not valid: {error}") from error
    if not events:
        return None
    ready = events[0]
    if not isinstance(ready, Ready):
        raise Refused(f"it says {type(ready).__name__} and not ready")
    if len(events) > 1 or connection.mid_frame:
        raise Refused("it says more than ready")
    return known if ready.functions == known else _checked(ready.functions)


def _checked(functions: dict[str, Any]) -> dict[str, Any]:
    if len(functions) > FUNCTIONS_MAX:
        raise Refused(f"it exposes {len(functions)} functions, limit is {FUNCTIONS_MAX}")
    room = schemas.VALUES_MAX
    for name, description in functions.items():
        if FUNCTION_NAME.fullmatch(name) is None:
            raise Refused(f"it exposes a function of the name {printable(name)!r}")
        if not isinstance(description, dict) or description.keys() != FIELDS:
            raise Refused(f"its description of {name!r} is not {', '.join(sorted(FIELDS))}")
        if not (isinstance(description["stream"], bool) and isinstance(description["idempotent"], bool)):
            raise Refused(f"its description of {name!r} has a field of the wrong type")
        try:
            room = schemas.check(description["output"], schemas.check(description["input"], room))
        except schemas.NotASchema as error:
            raise Refused(f"its description of {name!r} has no JSON Schema: {error}") from error
        timeout = description["timeout"]
        if timeout is not None and not (type(timeout) in (int, float) and 0 < timeout < math.inf):
            raise Refused(f"the timeout of {name!r} is not a number of seconds above 0")
    return functions
