"""Where no descriptor is left a pool's start is refused, wherever it meets that, and leaves nothing; one that runs gets over it."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import resource
import signal
import time
from collections.abc import Iterator

import pytest

from pyproc import Pool, PyprocError, Unavailable, WorkerLost

pytestmark = pytest.mark.unprivileged
SCRIPT = pathlib.Path(__file__).with_name("subject.py")


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """`count` more can be opened."""
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    filling = [os.dup(0)]
    while filling[-1] <= highest:
        filling.append(os.dup(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filling:
            os.close(fd)


@contextlib.contextmanager
def nothing_can_be_opened() -> Iterator[None]:
    """What is open stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # poll(2) is refused more than so many
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_wherever_the_descriptors_end_a_start_is_refused_and_leaves_nothing() -> None:
    Pool(SCRIPT).close()  # what is opened once
    ends = set()
    for count in range(1, 60):
        try:
            with descriptors_left(count):
                pool = Pool(SCRIPT)
        except (OSError, PyprocError) as error:
            assert "supervision failed" not in str(error)
            ends.add(type(error).__name__)
        else:
            pool.close()
            break
    else:
        pytest.fail("60 descriptors are not enough for a pool of one worker")
    assert "Unavailable" in ends, ends


def test_a_zygote_that_cannot_be_replaced_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(SCRIPT) as pool, caplog.at_level(logging.ERROR, "pyproc"):
        [zygote] = pool.status()["zygotes"]
        with nothing_can_be_opened():
            os.kill(zygote, signal.SIGKILL)
            end = time.monotonic() + 20
            while "start_failed" not in caplog.text:
                assert time.monotonic() < end
        while True:
            with contextlib.suppress(Unavailable, WorkerLost):  # the old worker may still be on its way out
                assert pool.call("echo", 1) == 1
                break
            assert time.monotonic() < end
