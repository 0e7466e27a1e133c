"""The dialogue of a supervisor and its worker, and what is permitted in each state, as data.

    supervisor (CallerConnection)                       worker (WorkerConnection)
       |                                                    |
       |  <------------------------- ready{functions} ----  |   NEW -> OPEN; once, and before all else
       |                                                    |
       |  -- request{id, method, body, ...} ------------->  |   id becomes open: PLAIN
       |  <-------- success{id, body} or failure{id, ...} - |   id is closed
       |                                                    |
       |  -- request{id, ..., stream: true} ------------->  |   id becomes open: STREAM, 16 parts may be sent
       |  <---------------------------- part{id, part} ---  |   one part less
       |  -- credit{id, n} ------------------------------>  |   n parts more, 65535 at most
       |  <---------------------------- part{id, part} ---  |
       |  <-------- success{id, body: null} or failure ---- |   id is closed; what is no generator sends its
       |                                                    |   success alone, with a body
       |  -- request{id, ..., batch: n} ----------------->  |   id becomes open: BATCH, n items may be answered
       |  <------ part{id, part: {results|value|failure}}   |   so many items less
       |  <-------- success{id, body: null} or failure ---- |   id is closed; after a success at least one item was answered,
       |                                                    |   and in both cases those that were not did not begin
       |  -- cancellation{id, reason} ------------------->  |   stays open until its answer, which may cross
       |  <------------------------------- failure{id} ---  |
       |                                                    |
       |  (end of file, or a breach of the rules)           |   -> CLOSED, nothing is read any more

What the tables do not list ends the connection. Exceptions, because the two directions cross: a
cancellation or a credit for an id that is not open is ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class State(enum.Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


READY: Final = "ready"
SUCCESS: Final = "success"
FAILURE: Final = "failure"
PART: Final = "part"
REQUEST: Final = "request"
CANCELLATION: Final = "cancellation"
CREDIT: Final = "credit"

ANSWERS: Final = (READY, SUCCESS, FAILURE, PART)
"""What a worker may send at all."""

ASKINGS: Final = (REQUEST, CANCELLATION, CREDIT)
"""What a caller may send at all."""

Table = Mapping[State, Mapping[str, State]]


def _table(rows: dict[State, dict[str, State]]) -> Table:
    return MappingProxyType({state: MappingProxyType(rows.get(state, {})) for state in State})


FROM_WORKER: Final[Table] = _table(
    {
        State.NEW: {READY: State.OPEN},
        State.OPEN: {SUCCESS: State.OPEN, FAILURE: State.OPEN, PART: State.OPEN},
    }
)
"""Received by a CallerConnection, sent by a WorkerConnection: (state, message) -> state."""

TO_WORKER: Final[Table] = _table({State.OPEN: {REQUEST: State.OPEN, CANCELLATION: State.OPEN, CREDIT: State.OPEN}})
"""Sent by a CallerConnection, received by a WorkerConnection: (state, message) -> state."""

UNKNOWN_CALL: Final = "unknown"
PLAIN_CALL: Final = "plain"
STREAM_CALL: Final = "stream"
BATCH_CALL: Final = "batch"

CALL: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        UNKNOWN_CALL: frozenset(),
        PLAIN_CALL: frozenset({SUCCESS, FAILURE}),
        STREAM_CALL: frozenset({SUCCESS, FAILURE, PART}),
        BATCH_CALL: frozenset({SUCCESS, FAILURE, PART}),
    }
)
"""What may be sent about a call, by what the call is to the connection."""

NO_STREAM: Final = -1
"""In a connection's map of open calls, the window of a call that is no stream."""

NO_ITEMS: Final = -2
"""There, the window of a batch of which no item may be answered; one less for each that may."""


def call_kind(window: int | None) -> str:
    """The row of `CALL` for a call's window; None for an id that is not open."""
    if window is None:
        return UNKNOWN_CALL
    if window == NO_STREAM:
        return PLAIN_CALL
    return STREAM_CALL if window >= 0 else BATCH_CALL
