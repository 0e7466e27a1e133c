"""The call that is being served: who asks, until when, and whether anyone still waits for it.

One call runs at a time, so there is one present call in a process, and threads that the function starts see it too: a
context variable would leave them outside. Nothing is looked up before it is asked for: a call that never asks costs one
small object.

    supervisor --- cancellation ---> channel ---> check_cancelled() looks, without waiting
                                             ---> a watching thread, while a function with `cancel_event` runs
                                             ---> the event loop, while an `async def` runs

Nothing here is a limit. The supervisor ends late and cancelled calls, whatever the function does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from msgspec import Raw

    from pyproc_wire.messages import LinkRequest


class Cancelled(Exception):
    """The caller gave up: it cancelled, hung up, or its deadline has passed."""


class Call(Struct, eq=False):
    """What a function may know of its call. `cancelled` turns True once and stays so.

    A Struct, as one is made for each call and C fills it. `since` is the time.monotonic() of its begin, `look` takes in
    what has arrived, `notify` is called from any thread when the caller gave up or granted credit. `item` is its place in a batch.
    """

    _request: LinkRequest
    _timeout: float | None
    _look: Callable[[], None]
    since: float
    cancelled: bool = False
    event: threading.Event | None = None
    notify: Callable[[], None] | None = None
    item: int | None = None

    def __repr__(self) -> str:
        return f"<call {self.id} of {self.method}>"

    @property
    def id(self) -> str:
        """The call's name, as text."""
        number = self._request.id
        return str(number) if self.item is None else f"{number}.{self.item}"

    @property
    def number(self) -> int:
        """The id on the connection that the call came over."""
        return self._request.id

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def body(self) -> Raw:
        """The body as it arrived."""
        return self._request.body

    @property
    def stream(self) -> bool:
        """Whether the caller asked for parts."""
        return self._request.stream

    @property
    def tenant(self) -> str | None:
        return self._request.tenant

    @property
    def principal(self) -> str | None:
        return self._request.principal

    @property
    def deadline(self) -> float | None:
        """The time.monotonic() at which the call is over, or None."""
        left = self._timeout
        if self._request.deadline_ms is not None:
            told = self._request.deadline_ms / 1000
            left = told if left is None else min(left, told)
        return None if left is None else self.since + left

    @property
    def allowed(self) -> str:
        """How long the call may take, in words, and who says so."""
        own, told = self._timeout, self._request.deadline_ms
        if told is None or (own is not None and int(own * 1000) <= told):
            return f"the call had {own or 0:g} s, by expose(timeout=)"
        return f"the call had {told / 1000:g} s, by its caller or the pool"

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        deadline = self.deadline
        return deadline is not None and monotonic() >= deadline

    def look(self) -> bool:
        """Take in what has arrived; whether the caller gave up or the deadline has passed."""
        if not self.cancelled:
            self._look()
        return self.cancelled or self.late

    def give_up(self) -> None:
        """The caller is gone: tell whoever waits for it. From any thread."""
        self.cancelled = True
        self.tell()

    def tell(self) -> None:
        """Set the event of `cancel_event` and wake who waits for news."""
        if self.event is not None:
            self.event.set()
        if self.notify is not None:
            self.notify()


present: Call | None = None
"""The call that runs now. Set by who serves, read through `current_call`."""


def current_call() -> Call:
    """The present call: `.id`, `.method`, `.deadline` (time.monotonic() seconds or None), `.tenant`, `.principal`.

    Raises RuntimeError where no call is being served.
    """
    if present is None:
        raise RuntimeError("no call is being served, current_call is for the inside of an exposed function")
    return present


def check_cancelled() -> None:
    """Raise Cancelled once the caller gave up or the deadline has passed. Costs about 2 us; never waits."""
    if current_call().look():
        raise Cancelled("caller gave up")
