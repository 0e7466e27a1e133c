"""A pool whose workers keep dying: unavailable for a period, which it tells, then one worker is tried."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pyproc import DeadlineExceeded, Pool, Unavailable, WorkerLost

SCRIPT = pathlib.Path(__file__).with_name("subject.py")
PERIOD = 3600.0  # seconds: no test waits for it


def until(true: Callable[[], object]) -> None:
    """Wait for it; a bound, not a promise."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came"


def idle(pool: Pool) -> int:
    return sum(worker["state"] == "idle" for worker in pool.status()["workers"])


def break_down(pool: Pool) -> None:
    """One death more than the intensity; then the other workers too, which are not replaced."""
    for _ in range(2):
        until(lambda: idle(pool) == 3)
        with pytest.raises(WorkerLost):
            pool.call("die_by", 3)
    until(lambda: pool.status()["unavailable"])
    for worker in pool.status()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: not pool.status()["workers"])


def end_period(pool: Pool) -> None:
    supervisor = pool._core.supervisor
    supervisor._loop.order(supervisor._ends._mend)
    until(lambda: pool.status()["unavailable"] is None)


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(SCRIPT, workers=3) as made:
        until(lambda: idle(made) == 3)
        restart = made._core.supervisor._ends.restart
        restart.intensity, restart.period = 1, PERIOD
        yield made


def test_a_broken_pool_says_so_and_how_long(pool: Pool) -> None:
    assert pool.status()["unavailable"] is None
    break_down(pool)
    left = []
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            pool.call("echo", 1)
        assert caught.value.reason == "restart_intensity" and caught.value.retry_after is not None
        left.append(caught.value.retry_after)
    told = pool.status()["unavailable"]
    assert told["reason"] == "restart_intensity" and "exit:3" in told["message"]
    assert PERIOD > left[0] > left[1] > told["retry_after"] > 0


def test_after_the_period_one_worker_is_tried_and_its_death_breaks_the_pool_again(pool: Pool) -> None:
    break_down(pool)
    end_period(pool)
    until(lambda: idle(pool) == 1)
    with pytest.raises(WorkerLost):
        pool.call("die_by", 3)
    until(lambda: pool.status()["unavailable"])
    assert pool.status()["workers"] == []


def test_a_tried_worker_that_answers_brings_the_others_back(pool: Pool) -> None:
    break_down(pool)
    end_period(pool)
    with pytest.raises(DeadlineExceeded):  # no fault of the worker's: another one is tried
        pool.call("spin", timeout=0.2)
    assert pool.call("echo", 1) == 1
    until(lambda: idle(pool) == 3)
    with pytest.raises(WorkerLost):  # within the intensity again
        pool.call("die_by", 3)
    assert pool.call("echo", 1) == 1


def test_the_period_ends_by_itself() -> None:
    with Pool(SCRIPT) as pool:
        restart = pool._core.supervisor._ends.restart
        restart.intensity, restart.period = 0, 0.05
        with pytest.raises(WorkerLost):
            pool.call("die_by", 3)
        until(lambda: pool.status()["unavailable"] is None and idle(pool))
        assert pool.call("echo", 1) == 1


def test_a_period_that_ends_while_the_pool_closes_opens_nothing(pool: Pool) -> None:
    running = pool.submit("nap", 2.0)
    until(lambda: pool.status()["ledger"]["in_flight"] == 1)
    for worker in pool.status()["workers"]:
        if worker["state"] == "idle":
            os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: pool.status()["unavailable"])
    closer = threading.Thread(target=pool.close, args=(20.0,))
    closer.start()
    until(lambda: pool._core.closing)
    mended = threading.Event()
    supervisor = pool._core.supervisor
    supervisor._loop.order(lambda: (supervisor._ends._mend(), mended.set()))
    assert mended.wait(10)
    with pytest.raises(Unavailable):
        pool.call("echo", 1)
    closer.join(30)
    assert running.result(0) == 2.0


def test_deaths_that_a_call_ordered_never_break_the_pool(pool: Pool) -> None:
    for _ in range(4):
        with pytest.raises(DeadlineExceeded):
            pool.call("spin", timeout=0.05)
    with pytest.raises(WorkerLost, match="output_limit"):
        pool.call("shout", 10_000)
    assert pool.call("echo", 1) == 1
    assert pool.status()["unavailable"] is None
