"""A call that ends while its request is only partly sent: cancelled or too late, never a breach of the protocol, and what is sent
after it is not taken for the rest of it."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import pathlib
import signal
import termios
import time
from collections.abc import Callable

import pytest

from pyproc import AsyncPool, DeadlineExceeded, Pool
from pyproc.host import procfs
from pyproc.supervisor.state import Worker

SCRIPT = pathlib.Path(__file__).with_name("subject.py")
BIG = b"x" * (1 << 20)  # beyond every pipe


def until(true: Callable[[], object]) -> None:
    """Wait for it; a bound, not a promise."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came"


def only_worker(pool: Pool | AsyncPool) -> Worker:
    [worker] = pool._core.supervisor._workers
    return worker


def stop(worker: Worker) -> None:
    """It reads nothing from here on."""
    os.kill(worker.pid, signal.SIGSTOP)
    until(lambda: procfs.stat(worker.pid).state == "T")


def unread(worker: Worker) -> int:
    """Bytes in the pipe of requests."""
    found = array.array("i", [0])
    fcntl.ioctl(worker.channel.requests, termios.FIONREAD, found)
    return found[0]


def just_beyond(worker: Worker) -> bytes:
    """A body whose request lacks a few bytes when the pipe is full: fewer than a cancellation has."""
    room = fcntl.fcntl(worker.channel.requests, fcntl.F_GETPIPE_SZ)
    return b"x" * (room - 20)


def test_a_cancelled_task_leaves_no_half_request_behind() -> None:
    async def main() -> None:
        async with AsyncPool(SCRIPT) as pool:
            assert await pool.call("echo", 1) == 1
            worker = only_worker(pool)
            stop(worker)
            call = asyncio.ensure_future(pool.call("echo", just_beyond(worker)))
            await asyncio.sleep(0)
            os.kill(worker.pid, signal.SIGCONT)
            until(lambda: unread(worker) == 0)  # the worker waits for the rest, which this loop has not sent yet
            assert not call.done()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(worker.finished.wait, 20)
            assert worker.death is not None and worker.death.reason == "cancelled"
            assert [await pool.call("echo", n) for n in range(3)] == [0, 1, 2]
            assert pool.status()["deaths"] == {"cancelled": 1}
            assert pool.status()["ledger"]["cancelled"] == 1

    asyncio.run(main())


def test_an_interrupted_caller_leaves_no_half_request_behind() -> None:
    with Pool(SCRIPT) as pool:
        assert pool.call("echo", 1) == 1
        worker = only_worker(pool)

        def go_on_and_interrupt(number: int, frame: object) -> None:
            os.kill(worker.pid, signal.SIGCONT)
            until(lambda: unread(worker) == 0)
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGALRM, go_on_and_interrupt)
        stop(worker)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                pool.call("echo", just_beyond(worker))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert worker.finished.wait(20)
        assert [pool.call("echo", n) for n in range(3)] == [0, 1, 2]
        assert pool.status()["deaths"] == {"cancelled": 1}


def test_a_deadline_that_comes_while_a_request_is_sent_is_a_deadline() -> None:
    with Pool(SCRIPT) as pool:
        stop(only_worker(pool))
        with pytest.raises(DeadlineExceeded):
            pool.call("echo", BIG, timeout=0.1)
        assert pool.call("echo", 1) == 1
        assert pool.status()["deaths"] == {"deadline": 1}


def test_a_deadline_that_comes_while_a_task_sends_is_a_deadline() -> None:
    async def main() -> None:
        async with AsyncPool(SCRIPT) as pool:
            for act, error in ((pool.call("echo", BIG, timeout=0.1), DeadlineExceeded), (slow(pool), TimeoutError)):
                assert await pool.call("echo", 1) == 1
                stop(only_worker(pool))
                with pytest.raises(error):
                    await act
            assert await pool.call("echo", 1) == 1
            assert pool.status()["deaths"] == {"deadline": 1, "cancelled": 1}

    async def slow(pool: AsyncPool) -> None:
        async with asyncio.timeout(0.1):
            await pool.call("echo", BIG)

    asyncio.run(main())
