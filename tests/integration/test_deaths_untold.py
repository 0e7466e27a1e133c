"""Where the kernel tells no exit status of a process that was reaped (before Linux 6.15) deaths have the same reasons, by the zombie.

The kernel's own word is taken away: PIDFD_GET_INFO is refused, and the version is one that does not have it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyproc import Limits, Pool, Sandbox, WorkerLost
from pyproc.config.options import Restart
from pyproc.host import libc, pidfd, procfs

SCRIPT = Path(__file__).with_name("subject.py")


@pytest.fixture(params=["strict", "default"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    ioctl = libc.kernel.ioctl

    def old(fd: int, number: int, *rest: Any) -> Any:
        if number == pidfd.GET_INFO:
            raise OSError(25, "not a typewriter")
        return ioctl(fd, number, *rest)

    monkeypatch.setattr(libc.kernel, "ioctl", old)
    monkeypatch.setattr(pidfd, "tells_of_the_reaped", lambda: False)
    with Pool(SCRIPT, workers=2, sandbox=Sandbox(request.param), limits=Limits(cpu_time="1 s"), restart=Restart(intensity=100)) as made:
        yield made


def zombies(pool: Pool) -> list[int]:
    [zygote] = pool.status()["zygotes"]
    return [pid for pid in procfs.children(zygote) if procfs.stat(pid).state == "Z"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: this kernel shows the status of such a zombie to nobody else")
def test_deaths_have_their_reasons_and_no_zombie_stays(pool: Pool) -> None:
    for end, reason in ((3, "exit:3"), (signal.SIGABRT, "signal:SIGABRT"), (signal.SIGSEGV, "signal:SIGSEGV"), (0, "exit:0")):
        for _ in range(3):
            with pytest.raises(WorkerLost) as caught:
                pool.call("die_by", int(end))
            assert caught.value.reason == reason
    assert pool.call("echo", 1) == 1
    os.kill(next(worker["pid"] for worker in pool.status()["workers"]), signal.SIGKILL)
    while "signal:SIGKILL" not in pool.status()["deaths"]:
        with contextlib.suppress(WorkerLost):
            pool.call("echo", 1)
    with pytest.raises(WorkerLost) as caught:
        pool.call("die_by", 4)
    while pool.call("echo", 1) == 1 and zombies(pool):
        pass  # the last one's is let go of in this moment


@pytest.mark.parametrize(("release", "told"), [("6.1.0-56-cloud-amd64", False), ("6.14.9", False), ("6.15.0", True), ("7.0-rc1", True)])
def test_the_kernel_tells_from_6_15_on(release: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pidfd.platform, "release", lambda: release)
    assert pidfd.tells_of_the_reaped() is told
