"""Calls that wait for a worker: accepted when they join the queue, counted once whatever becomes of them; what is refused is not."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyproc import (
    AsyncPool,
    CallError,
    DeadlineExceeded,
    InvalidArgument,
    Limits,
    NotFound,
    PayloadTooLarge,
    Pool,
    ResourceExhausted,
    Unavailable,
    WorkerLost,
)

SCRIPT = pathlib.Path(__file__).with_name("subject.py")
LONG = 60.0  # seconds: no call of a test ends by itself


def ledger(pool: Pool | AsyncPool) -> dict[str, int]:
    """The ledger, whose equation holds whenever one looks."""
    found = pool.status()["ledger"]
    assert found["accepted"] == sum(count for name, count in found.items() if name != "accepted"), found
    return found


def until(true: Callable[[], bool]) -> None:
    """Wait for it; a bound, not a promise."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came"


def started(act: Callable[..., object], *arguments: object) -> threading.Thread:
    """`act` in a thread; the CallError it ends in is a test's expectation elsewhere."""
    def run() -> None:
        with contextlib.suppress(CallError):
            act(*arguments)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@contextlib.contextmanager
def busy(**options: Any) -> Iterator[Pool]:
    """A pool whose only worker is in a long call."""
    with Pool(SCRIPT, workers=1, **options) as pool:
        holder = started(pool.call, "nap", LONG)
        until(lambda: ledger(pool)["in_flight"] == 1)
        try:
            yield pool
        finally:
            pool.close()
            holder.join(10)
            assert ledger(pool)["in_flight"] == 0


def test_a_queued_call_is_in_flight_and_a_refused_one_never_was() -> None:
    with busy(queue=1) as pool:
        waiting = started(pool.call, "echo", 1)
        until(lambda: pool.status()["queued"] == 1)
        until(lambda: ledger(pool)["in_flight"] == 2)
        with pytest.raises(ResourceExhausted) as caught:
            pool.call("echo", 2)
        assert caught.value.bound == "queue"
        assert ledger(pool)["accepted"] == 2
        assert pool.status()["rejected"] == {"resource_exhausted/queue": 1}
        pool.close()
        waiting.join(10)
        until(lambda: ledger(pool)["in_flight"] == 0)
        assert ledger(pool) == {"accepted": 2, "ok": 0, "failed": 1, "deadline": 0, "cancelled": 0, "lost": 1, "in_flight": 0}


def test_a_queued_call_that_comes_too_late_is_a_deadline() -> None:
    with busy() as pool:
        with pytest.raises(DeadlineExceeded):
            pool.call("echo", 1, timeout=0.05)
        assert (ledger(pool)["accepted"], ledger(pool)["deadline"], ledger(pool)["in_flight"]) == (2, 1, 1)
        assert pool.status()["queued"] == 0


def test_a_queued_call_that_gets_its_worker_is_counted_once() -> None:
    with Pool(SCRIPT, workers=1) as pool:
        callers = [started(pool.call, "nap", 0.01) for _ in range(8)]
        for caller in callers:
            caller.join(30)
        assert ledger(pool) == {"accepted": 8, "ok": 8, "failed": 0, "deadline": 0, "cancelled": 0, "lost": 0, "in_flight": 0}


def test_a_queued_call_whose_task_is_cancelled_is_cancelled() -> None:
    async def main() -> None:
        async with AsyncPool(SCRIPT, workers=1) as pool:
            holder = asyncio.ensure_future(pool.call("patient"))
            while ledger(pool)["in_flight"] == 0:
                await asyncio.sleep(0)
            waiting = asyncio.ensure_future(pool.call("echo", 1))
            while pool.status()["queued"] == 0:
                await asyncio.sleep(0)
            assert ledger(pool)["in_flight"] == 2
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (ledger(pool)["cancelled"], ledger(pool)["in_flight"], pool.status()["queued"]) == (1, 1, 0)
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder

    asyncio.run(main())


REFUSED: list[tuple[type[CallError], str, tuple[Any, ...], dict[str, Any]]] = [
    (NotFound, "not_found", ("nope", 1), {}),
    (InvalidArgument, "invalid_argument", ("echo", object()), {}),
    (InvalidArgument, "invalid_argument", ("echo", 1), {"timeout": "soon"}),
    (PayloadTooLarge, "payload_too_large", ("echo", "x" * 2000), {}),
    (DeadlineExceeded, "deadline_exceeded", ("echo", 1), {"timeout": 0}),
]


@pytest.mark.parametrize("idle", [True, False], ids=["an idle worker", "a queue"])
def test_what_is_refused_is_rejected_and_not_accepted(*, idle: bool) -> None:
    limits = Limits(request="1 KiB")
    with (Pool(SCRIPT, limits=limits) if idle else busy(limits=limits)) as pool:
        before = ledger(pool)
        for kind, key, arguments, options in REFUSED:
            known = pool.status()["rejected"].get(key, 0)
            with pytest.raises(kind):
                pool.call(*arguments, **options)
            with pytest.raises(kind):
                next(pool.stream(*arguments, **options))
            assert pool.status()["rejected"][key] == known + 2, key
        assert ledger(pool) == before
        assert pool.status()["queued"] == 0
        pool.close()
        with pytest.raises(Unavailable):
            pool.call("echo", 1)
        assert pool.status()["rejected"]["unavailable"] == 1


def test_a_body_is_taken_as_it_was_when_it_queued() -> None:
    with Pool(SCRIPT, workers=1) as pool:
        release = pool.stream("numbers", 100_000)
        next(release)  # the worker is busy until this is closed
        body, answers = [1], []
        waiting = threading.Thread(target=lambda: answers.append(pool.call("echo", body)))
        waiting.start()
        until(lambda: pool.status()["queued"] == 1)
        body.append(2)
        release.close()
        waiting.join(30)
        assert answers == [[1]]


def test_a_death_in_a_call_that_had_queued_is_lost_once() -> None:
    with Pool(SCRIPT, workers=1) as pool:
        release = pool.stream("numbers", 100_000)
        next(release)
        ends: list[type[Exception]] = []

        def die() -> None:
            try:
                pool.call("die_by", 3)
            except WorkerLost as error:
                ends.append(type(error))

        waiting = threading.Thread(target=die)
        waiting.start()
        until(lambda: ledger(pool)["in_flight"] == 2)
        release.close()
        waiting.join(30)
        assert ends == [WorkerLost]
        assert (ledger(pool)["accepted"], ledger(pool)["lost"], ledger(pool)["cancelled"]) == (2, 1, 1)
