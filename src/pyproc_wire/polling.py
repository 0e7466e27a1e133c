"""When an end of a channel polls before it sleeps (ADR 0007), for both ends alike. Pure: what polls and what gives way is passed in.

To be woken on another core costs more than a short call; on the same core the first `give_way` lets the other end speak. With the
option `busy_polling` an end looks out before each sleep, and for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CALLS: Final = 64
"""Of a worker, after which an end looks out once, whatever it knows."""

LOOKS: Final = 150
"""About 0.2 ms: what an end on another core takes to wake up and to answer a short call."""

SAME_CORE: Final = 2
"""Looks after which a message is there that only waited for the core."""


def look_out(arrived: Callable[[int], object], give_way: Callable[[], None]) -> bool:
    """Return when `arrived(0)` is true, or LOOKS looks later: whether it is worth to look out again, as the message came from
    another core meanwhile."""
    for looks in range(LOOKS):
        if arrived(0):
            return looks > SAME_CORE
        give_way()
    return False


def busily(arrived: Callable[[int], object], give_way: Callable[[], None], clock: Callable[[], float], seconds: float) -> None:
    """Return when `arrived(0)` is true, or `seconds` of `clock` later. It gives way as well: where both ends came to share a core, a
    call would take all those seconds."""
    end = clock() + seconds
    while not arrived(0) and clock() < end:
        give_way()
