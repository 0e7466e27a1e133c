"""The supervision loop: descriptors, timers in order, orders from other threads, and what an action may do to the others."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator

import pytest

from pyproc.supervisor.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_timers_run_in_the_order_of_their_time_and_a_cancelled_one_does_not(loop: Loop) -> None:
    ran: list[str] = []
    loop.later(0.002, lambda: ran.append("second"))
    loop.later(0.001, lambda: ran.append("first"))
    loop.later(0.001, lambda: ran.append("first too"))
    loop.later(0.0, lambda: ran.append("never")).cancel()
    loop.later(0.003, lambda: ran.append("last"))
    while "last" not in ran:
        loop.turn(math.inf)
    assert ran == ["first", "first too", "second", "last"]


def test_a_timer_that_a_timer_cancels_does_not_run(loop: Loop) -> None:
    ran: list[str] = []
    loop.later(0.0, lambda: second.cancel())
    second = loop.later(0.0, lambda: ran.append("second"))
    loop.turn(time.monotonic() + 0.01)
    assert ran == []


def test_a_turn_ends_when_its_time_is_over(loop: Loop) -> None:
    until = time.monotonic() + 0.01
    assert loop.turn(until) is False
    assert time.monotonic() >= until


def test_an_order_of_another_thread_ends_the_wait_and_is_a_poke(loop: Loop) -> None:
    ran: list[int] = []
    thread = threading.Thread(target=lambda: loop.order(lambda: ran.append(threading.get_ident())))
    thread.start()
    assert loop.turn(math.inf) is True
    thread.join()
    assert ran == [threading.get_ident()]


def test_a_descriptor_that_is_unwatched_in_the_same_turn_is_left_alone(loop: Loop) -> None:
    ends, ran = [os.pipe() for _ in range(2)], []

    def only(mine: int, other: int) -> None:
        ran.append(mine)
        loop.unwatch(other)

    for (reader, writer), (other, _) in zip(ends, reversed(ends), strict=True):
        loop.watch(reader, lambda reader=reader, other=other: only(reader, other))  # type: ignore[misc]
        os.write(writer, b"x")
    loop.turn(math.inf)
    assert len(ran) == 1
    for reader, writer in ends:
        loop.unwatch(reader)
        os.close(reader)
        os.close(writer)


def test_an_unwatched_or_unknown_descriptor_is_no_error(loop: Loop) -> None:
    loop.unwatch(-1)
    loop.unwatch(12345)
