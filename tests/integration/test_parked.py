"""Isolation by call with workers forked ahead: what waits, what may run at the same time, and what becomes of those that end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from pyproc import Pool

SCRIPT = """
import os
import time

from pyproc_worker import expose, run_worker

@expose
def who() -> int:
    return os.getpid()

@expose
def span(seconds: float) -> list:
    begin = time.monotonic()
    time.sleep(seconds)
    return [os.getpid(), begin, time.monotonic()]

@expose
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()

if __name__ == "__main__":
    run_worker()
"""
BOUND_SECONDS = 30.0


@pytest.fixture
def script(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    return path


def states(pool: Pool) -> Counter[str]:
    return Counter(worker["state"] for worker in pool.status()["workers"])


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < limit


def settled(pool: Pool, workers: int) -> bool:
    found = states(pool)
    return found["idle"] == workers and found["parked"] >= 2 and not found["ending"]


def test_workers_are_parked_ahead_and_refilled(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call") as pool:
        until(lambda: settled(pool, 1))
        ahead = {worker["pid"] for worker in pool.status()["workers"]}
        assert len({pool.call("who") for _ in range(3)}) == 3
        until(lambda: settled(pool, 1))
        assert not ahead & {worker["pid"] for worker in pool.status()["workers"]}
        assert pool.status()["deaths"] == {}


def test_no_more_calls_run_than_there_are_workers(script: pathlib.Path) -> None:
    with Pool(script, workers=2, isolation="call") as pool:
        until(lambda: settled(pool, 2))
        running = [pool.submit("span", 0.1) for _ in range(8)]
        spans = [tuple(future.result(20)) for future in running]
    assert len({pid for pid, _, _ in spans}) == 8
    for _, begin, _ in spans:  # on one clock, whatever the process
        assert sum(other <= begin < end for _, other, end in spans) <= 2


def test_a_worker_is_killed_before_its_answer_is_returned(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call") as pool:
        until(lambda: settled(pool, 1))
        for _ in range(3):
            (pid,) = (worker["pid"] for worker in pool.status()["workers"] if worker["state"] == "idle")
            pool.call("who")
            assert pid not in [worker["pid"] for worker in pool.status()["workers"] if worker["state"] != "ending"]
            until(lambda: settled(pool, 1))


def test_a_parked_worker_that_dies_is_replaced_and_takes_no_place(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call") as pool:
        until(lambda: settled(pool, 1))
        victim = next(worker["pid"] for worker in pool.status()["workers"] if worker["state"] == "parked")
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in [worker["pid"] for worker in pool.status()["workers"]] and settled(pool, 1))
        assert sum(pool.status()["deaths"].values()) == 1
        assert states(pool)["idle"] == 1
        pool.call("who")


def test_misses_park_more(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call") as pool:
        threads = [threading.Thread(target=lambda: [pool.call("who") for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: states(pool)["parked"] > 2)
        assert pool.status()["ledger"]["ok"] == 80


@contextlib.contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_with_few_descriptors_nothing_is_parked_and_calls_are_served(script: pathlib.Path) -> None:
    with few_descriptors(45), Pool(script, workers=2, isolation="call") as pool:
        assert len({pool.call("who") for _ in range(10)}) == 10
        assert not states(pool)["parked"]
        assert pool.status()["deaths"] == {}


def test_where_each_worker_boots_apart_nothing_is_parked(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call", zygote=False) as pool:
        assert [pool.call("health")["requests_handled"] for _ in range(3)] == [1, 1, 1]
        assert not states(pool)["parked"]


def test_workers_that_serve_many_calls_are_never_parked(script: pathlib.Path) -> None:
    with Pool(script, workers=2) as pool:
        until(lambda: states(pool)["idle"] == 2)
        pool.call("who")
        assert states(pool) == Counter(idle=2)
