"""The language, sans I/O: bytes in, events out; calls in, bytes out. This module is the door to the two ends.

The picture of the dialogue and the tables of what is permitted stand in `connection_state`, the events in
`events`.
"""

from __future__ import annotations

from pyproc_wire.caller_connection import CallerConnection, CallerEvent, measure_request, plain_request
from pyproc_wire.codec import JSON, MESSAGEPACK, Codec
from pyproc_wire.connection_state import CALL, FROM_WORKER, TO_WORKER, State
from pyproc_wire.events import (
    Answered,
    BadRequest,
    BriefSuccess,
    Called,
    CancelRequested,
    ConnectionClosed,
    CreditGranted,
    Failed,
    Part,
    Ready,
    Succeeded,
)
from pyproc_wire.messages import Asking, BriefRequest, Report
from pyproc_wire.server_connection import ServerConnection, choose_codec
from pyproc_wire.worker_connection import WorkerConnection, WorkerEvent

__all__ = [
    "CALL",
    "FROM_WORKER",
    "JSON",
    "MESSAGEPACK",
    "TO_WORKER",
    "Answered",
    "Asking",
    "BadRequest",
    "BriefRequest",
    "BriefSuccess",
    "Called",
    "CallerConnection",
    "CallerEvent",
    "CancelRequested",
    "Codec",
    "ConnectionClosed",
    "CreditGranted",
    "Failed",
    "Part",
    "Ready",
    "Report",
    "ServerConnection",
    "State",
    "Succeeded",
    "WorkerConnection",
    "WorkerEvent",
    "choose_codec",
    "measure_request",
    "plain_request",
]
