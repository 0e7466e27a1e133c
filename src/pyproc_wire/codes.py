"""The closed set of error codes and bounds that may stand in a failure.

Nothing here has behaviour. A code that is not in the set is a breach of protocol, never passed on and never
looked up by name: what a worker says must not choose a class on the trusted side.
"""

from __future__ import annotations

import enum
from typing import Final


class ErrorCode(enum.StrEnum):
    """Contract section 4; the text of a member is the code on the wire."""

    INVALID_ARGUMENT = "invalid_argument"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FUNCTION_FAILED = "function_failed"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    WORKER_LOST = "worker_lost"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


CODES: Final[frozenset[str]] = frozenset(code.value for code in ErrorCode)

NOT_A_WORKERS_TO_SAY: Final[frozenset[str]] = frozenset({"unauthenticated", "permission_denied", "worker_lost"})
"""Who the caller is and whether a worker died is known outside the sandbox only; from a worker these are
forgeries."""

WORKER_CODES: Final[frozenset[str]] = CODES - NOT_A_WORKERS_TO_SAY
"""The codes that a worker may answer on its channel."""

BOUNDS: Final[frozenset[str]] = frozenset(
    {
        "rate",
        "queue",
        "connections",
        "in_flight",
        "memory",
        "processes",
        "scratch",
        "open_files",
        "response",
    }
)
"""Which limit was met (contract section 10)."""

WORKER_BOUNDS: Final[frozenset[str]] = frozenset({"memory", "processes", "scratch", "open_files", "response"})
"""The limits that a function can meet inside the sandbox; the rest belong to admission."""
