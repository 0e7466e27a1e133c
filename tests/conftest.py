"""What every test gets: a printed seed, and the check that nothing is left behind.

The seed of a run is printed in the header and repeated by `PYPROC_SEED=N make suite`; each test's `random` starts from
the seed and its own name, so that a test alone meets the same values as in the whole run.

After each test the number of child processes and of open descriptors must be what it was before. Numbers and not
identities are compared, as a pool shared by a file's tests may have replaced a worker. The test process adopts orphans
(PR_SET_CHILD_SUBREAPER), so that a grandchild whose parent is gone is still found here and not lost to the machine's
pid 1. Everything is polled within a bound: a process that is on its way out is no leak.
"""

from __future__ import annotations

import ctypes
import os
import random
import secrets
import time
from collections.abc import Iterator

import pytest

SETTLE_SECONDS = 5.0  # a killed tree of processes on two busy cores needs about 0.1 s; this is the bound, not the wait
ADOPTED_AFTER_SECONDS = 0.3  # a zombie that old has no parent that waits for it: it was adopted, and it is reaped here
PR_SET_CHILD_SUBREAPER = 36

SEED = os.environ.setdefault("PYPROC_SEED", str(secrets.randbelow(1 << 32)))  # through the environment to xdist's workers


def pytest_report_header() -> str:
    """Show what repeats this run."""
    return f"seed: PYPROC_SEED={SEED}"


def pytest_configure(config: pytest.Config) -> None:
    """Adopt orphans of this process's descendants, so that the leak check sees them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def maybe_children() -> list[str]:
    """Pids among which are all direct children: those that the kernel lists, or every pid where it keeps no list."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):  # a kernel without CONFIG_PROC_CHILDREN
        return [entry for entry in os.listdir("/proc") if entry.isdigit()]
    while True:
        listed: list[str] = []
        try:
            for thread in os.listdir("/proc/self/task"):  # a child belongs to the thread that made it
                with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                    listed += file.read().split()
            return listed
        except (FileNotFoundError, ProcessLookupError):  # that thread has ended, and its children are another one's now
            continue


def children() -> dict[int, str]:
    """Pid -> "name state" of every direct child, zombies too. Asked twice for each test: all of /proc would be 50 s of a run."""
    found: dict[int, str] = {}
    for entry in maybe_children():
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:  # gone between the listing and the reading
            continue
        name, _, rest = text.rpartition(")")
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid():
            found[int(entry)] = f"{name.partition('(')[2]} {state}"
    return found


def descriptors() -> dict[int, str]:
    """Descriptor -> what it refers to."""
    found: dict[int, str] = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # the listing's own descriptor
            continue
    return found


def reap_adopted(fresh: dict[int, str]) -> None:
    """Collect zombies that nobody in this process waits for."""
    for pid, what in fresh.items():
        if what.endswith(" Z"):
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # its parent object collected it after all
                continue


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process or a descriptor behind."""
    processes, files = children(), descriptors()
    yield
    begun = time.monotonic()
    while True:
        now_processes, now_files = children(), descriptors()
        more_processes, more_files = len(now_processes) > len(processes), len(now_files) > len(files)
        if not more_processes and not more_files:
            return
        waited = time.monotonic() - begun
        fresh = {pid: what for pid, what in now_processes.items() if pid not in processes}
        if waited > ADOPTED_AFTER_SECONDS:
            reap_adopted(fresh)
        if waited > SETTLE_SECONDS:
            break
        time.sleep(0.01)
    opened = {fd: what for fd, what in now_files.items() if files.get(fd) != what}
    pytest.fail(f"left behind: processes {fresh if more_processes else {}}, descriptors {opened if more_files else {}}")


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Start `random` from the run's seed and the test's name."""
    random.seed(f"{SEED} {request.node.nodeid}")
