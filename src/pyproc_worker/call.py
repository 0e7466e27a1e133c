"""The call that is being served: who, until when, and whether anyone still waits.

A cancellation arrives on the channel while the function runs. `check_cancelled` looks there without waiting; a thread
watches only while a function that asked for `cancel_event` runs. Nothing here is a limit: the supervisor ends late calls.

The present call is kept in a context variable: `asyncio.to_thread` and tasks inherit it, while a plain thread that
outlives its call cannot mistake a later call for its own.
"""

from __future__ import annotations

import contextvars
import select
import threading
import time
from collections.abc import Callable

POLL_IN = select.POLLIN


class Cancelled(Exception):
    """The caller gave up; raised by check_cancelled()."""


class Call:
    """`.id` (text), `.method`, `.deadline` (time.monotonic() seconds, or None), `.tenant`, `.principal`."""

    __slots__ = ("_event", "_look", "deadline", "id", "method", "principal", "tenant")

    def __init__(self, id: int, method: str, deadline: float | None, tenant: str | None, principal: str | None,
                 look: Callable[[], None]) -> None:
        self.id = str(id)
        self.method = method
        self.deadline = deadline
        self.tenant = tenant
        self.principal = principal
        self._event: threading.Event | None = None
        self._look = look

    @property
    def cancelled(self) -> threading.Event:
        """Set once the caller gave up. Made on demand, as an event costs more than the rest of a call's record."""
        event = self._event
        if event is None:
            with _making:
                event = self._event
                if event is None:
                    event = self._event = threading.Event()
        return event

    @property
    def abandoned(self) -> bool:
        """Whether the caller is known to have given up; does not look at the channel."""
        return self._event is not None and self._event.is_set()

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check(self) -> None:
        """Look at the channel; raise Cancelled once the caller gave up or the deadline has passed."""
        self._look()
        if self.abandoned:
            raise Cancelled("the caller gave up")
        if self.late:
            raise Cancelled("the deadline has passed")


_making = threading.Lock()
_present: contextvars.ContextVar[Call | None] = contextvars.ContextVar("pyproc_call", default=None)


def begin(call: Call | None) -> None:
    """Make `call` the present one of this context; None when it is over."""
    _present.set(call)


def current_call() -> Call:
    """The call that is served here. Raises RuntimeError outside of one."""
    call = _present.get()
    if call is None:
        raise RuntimeError("no call is being served here; current_call() works inside an exposed function")
    return call


def check_cancelled() -> None:
    """Raise Cancelled once the caller gave up or the deadline has passed."""
    current_call().check()
