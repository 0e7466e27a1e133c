"""The call that is being served: who, until when, and whether anyone still waits.

A cancellation arrives on the channel while the function runs. `check_cancelled` looks there without waiting; a thread
watches only while a function that asked for `cancel_event` runs. Nothing here is a limit: the supervisor ends late calls.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

POLL_IN = select.POLLIN


class Cancelled(Exception):
    """The caller gave up; raised by check_cancelled()."""


class Call:
    """`.id` (text), `.method`, `.deadline` (time.monotonic() seconds, or None), `.tenant`, `.principal`."""

    __slots__ = ("_look", "cancelled", "deadline", "id", "method", "principal", "tenant")

    def __init__(self, id: int, method: str, deadline: float | None, tenant: str | None, principal: str | None,
                 look: Callable[[], None]) -> None:
        self.id = str(id)
        self.method = method
        self.deadline = deadline
        self.tenant = tenant
        self.principal = principal
        self.cancelled = threading.Event()
        self._look = look


_local = threading.local()


def begin(call: Call) -> None:
    """Make `call` the present one of this thread."""
    _local.call = call


def current_call() -> Call:
    """The call that this thread serves. Raises RuntimeError outside of one."""
    call = getattr(_local, "call", None)
    if call is None:
        raise RuntimeError("no call is being served here; current_call() works inside an exposed function")
    return call  # type: ignore[no-any-return]


def check_cancelled() -> None:
    """Raise Cancelled once the caller gave up or the deadline has passed."""
    call = current_call()
    call._look()
    if call.cancelled.is_set():
        raise Cancelled("the caller gave up")
    if call.deadline is not None and time.monotonic() > call.deadline:
        raise Cancelled("the deadline has passed")
