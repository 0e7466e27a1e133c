"""The time of a stream: each part's own, and the call's as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from pyproc import AsyncPool, DeadlineExceeded, InvalidArgument, Pool
from pyproc.supervisor.state import Worker

SCRIPT = Path(__file__).with_name("subject.py")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(SCRIPT) as pool:
        yield pool


def worker_of(pool: Pool) -> Worker:
    (worker,) = (worker for worker in pool._core.supervisor._population.workers if worker.call_id)
    return worker


def test_a_part_that_does_not_come_ends_the_call_and_says_which_time_was_over(pool: Pool) -> None:
    parts, before = pool.stream("stalls", 2, part_timeout="200 ms"), pool.status()["ledger"]["deadline"]
    assert [next(parts), next(parts)] == [0, 1]
    with pytest.raises(DeadlineExceeded, match=r"0\.2 s for its next part, the stream's part_timeout"):
        next(parts)
    assert pool.status()["ledger"]["deadline"] == before + 1
    assert pool.call("echo", 1) == 1


def test_the_first_part_has_no_more_time(pool: Pool) -> None:
    with pytest.raises(DeadlineExceeded, match="part_timeout"):
        list(pool.stream("stalls", 0, part_timeout=0.2))
    assert pool.call("echo", 1) == 1


def test_the_time_as_a_whole_holds_beside_it(pool: Pool) -> None:
    with pytest.raises(DeadlineExceeded, match=r"0\.2 s, the call's timeout"):
        list(pool.stream("stalls", 1, timeout=0.2, part_timeout=20))
    assert pool.call("echo", 1) == 1


def test_what_the_consumer_takes_does_not_count(pool: Pool) -> None:
    parts = pool.stream("numbers", 100, timeout=20, part_timeout=10)
    next(parts)
    worker = worker_of(pool)
    assert worker.part_seconds == 0 and worker.deadline - monotonic() > 15
    assert list(parts) == list(range(1, 100))


@pytest.mark.parametrize("value", [0, -1, "5", "soon", float("nan")])
def test_a_time_that_is_none_is_refused(pool: Pool, value: object) -> None:
    before = pool.status()["rejected"].get("invalid_argument", 0)
    with pytest.raises(InvalidArgument, match="part_timeout"):
        next(pool.stream("numbers", 1, part_timeout=value))  # type: ignore[arg-type]
    assert pool.status()["rejected"]["invalid_argument"] == before + 1


def test_the_asynchronous_face_does_the_same() -> None:
    async def parts() -> None:
        async with AsyncPool(SCRIPT) as pool:
            assert [part async for part in pool.stream("numbers", 50, part_timeout=10)] == list(range(50))
            stalled = pool.stream("stalls", 1, part_timeout=0.2)
            assert await anext(stalled) == 0
            with pytest.raises(DeadlineExceeded, match="part_timeout"):
                await anext(stalled)
            assert await pool.call("echo", 1) == 1

    asyncio.run(parts())
