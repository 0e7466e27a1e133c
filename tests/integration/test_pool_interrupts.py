"""An interrupt, a signal handler that raises, at each place of a call where CPython runs handlers: no worker is lost, each call is
counted once.

A profile function raises instead of a signal handler: it is told of each function that is entered and of each return from C, which
is where CPython looks for signals (`pool.checkout`; backward jumps, which a call has none of that matters, come on top). Of the
places a run takes one in STEP, from a random first one; PYPROC_SOAK takes all.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyproc import Pool

SCRIPT = Path(__file__).with_name("subject.py")
PLACES_MAX = 500
STEP = 1 if "PYPROC_SOAK" in os.environ else 4


class Interrupt(BaseException):
    """No Exception, as KeyboardInterrupt."""


def interrupted(place: int, act: Callable[[], Any]) -> bool:
    """Whether `act` had so many places; it is interrupted at that one."""
    seen = 0

    def look(frame: Any, event: str, what: Any) -> None:
        nonlocal seen
        if event in ("call", "c_return"):
            seen += 1
            if seen == place:
                sys.setprofile(None)
                raise Interrupt

    try:
        sys.setprofile(look)
        act()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def queued(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Any:
    checkout = pool._core.checkout
    take = checkout.take
    with monkeypatch.context() as patch:  # and the queue gives it the idle worker at once
        patch.setattr(checkout, "take", lambda *, queued=False: take(queued=True) if queued else None)
        return pool.call("echo", 1)


@pytest.mark.parametrize("way", ["call", "queued", "stream"])
def test_an_interrupt_loses_no_worker_and_no_count(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(SCRIPT) as pool:
        ways: dict[str, Callable[[], Any]] = {
            "call": lambda: pool.call("echo", 1), "queued": lambda: queued(pool, monkeypatch),
            "stream": lambda: list(pool.stream("numbers", 1)),
        }
        place = 1 + random.randrange(STEP)
        while interrupted(place, ways[way]):
            assert pool.call("echo", place, timeout=10) == place
            place += STEP
        assert 10 < place < PLACES_MAX
        ledger = pool.status()["ledger"]
        assert ledger["in_flight"] == 0
        assert ledger["failed"] == ledger["lost"] == ledger["deadline"] == 0
