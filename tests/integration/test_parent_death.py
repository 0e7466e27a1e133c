"""The layer parent_death: a worker ends with its zygote where no pid namespace ends it, whatever its code is doing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]

COMPUTED = 20  # ticks, 0.2 s: more than a start and a request take
SCRIPT = Path(__file__).with_name("subject.py")
APPLICATION = """
import sys
from pyproc import Pool, Sandbox
pool = Pool(sys.argv[1], sandbox=Sandbox(layers=dict.fromkeys(sys.argv[2:], "off")), env={"NO_IMPORT_ATTACKS": "1"})
pool.submit("spin", timeout=60)
while not (pids := [worker["pid"] for worker in pool.status()["workers"] if worker["state"] == "busy"]):
    pass
print(*pids, flush=True)
sys.stdin.read()
"""


def ticks(pid: int) -> int:
    """Of processor time that the process has used."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11])


def outlives(*off: str) -> bool:
    """Whether a worker that computes lives on when its application is killed; it is ended then."""
    order = [sys.executable, "-c", APPLICATION, str(SCRIPT), *off]
    application = subprocess.Popen(order, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert application.stdout is not None and application.stdin is not None
    pid = int(application.stdout.readline())
    pidfd = os.pidfd_open(pid)
    try:
        while ticks(pid) < COMPUTED:  # it does not look at its channel any more
            pass
        application.kill()
        application.wait()
        lives = not select.select([pidfd], [], [], 2.0)[0]
        if lives:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return lives
    finally:
        os.close(pidfd)
        application.stdout.close()
        application.stdin.close()


def test_a_worker_that_computes_ends_with_its_application_without_a_pid_namespace() -> None:
    assert not outlives("pid_namespace", "cgroup")


def test_without_parent_death_it_is_the_pid_namespace_that_ends_it() -> None:
    assert not outlives("parent_death", "cgroup")


def test_without_both_it_lives_on() -> None:
    """What the layer is for: this is what the two tests above would see without it."""
    assert outlives("parent_death", "pid_namespace", "cgroup")
