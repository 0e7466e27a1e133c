"""A hostile worker through a real pool: each case of the catalogue, with a bystander whose answers must stay right.

    worker A   plays the case in a call of its own, which must end for the stated reason
    worker B   serves a stream during all of it; each of its parts is compared
    afterwards the next call is served, one death is counted, no descriptor more is open, and the peak of the memory
    that this process held meanwhile stays below a bound

One pool is played against by all cases, one after another, and B is the same process from the first to the last: nothing of
a case may be left for the next one. What a peer says does not depend on the user: as an unprivileged one each way to end once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 - a reference to an array imports it, and that is no part of the peak
import pytest

from pyproc import AsyncPool, CallError, DeadlineExceeded, Limits, Pool, Restart, WorkerLost
from pyproc.pool import batches

HERE = Path(__file__).parent
PEER = HERE / "hostile_peer.py"
CASES: list[dict[str, Any]] = tomllib.loads((HERE / "catalogue.toml").read_text(encoding="utf-8"))["case"]
LIMITS = Limits(response="1 MiB", output="64 KiB")  # the longest frame is 1 MiB and 128 KiB
PEAK_BYTES = 4 << 20  # a frame of the greatest length, a copy of it, and what an interpreter takes for itself
ALL_SECONDS = 600  # of the bystander's stream: all cases together, on a busy machine
OUTPUT_READ_BYTES = 4 << 20  # of the gigabyte: 16 times `output`, and what lies in a pipe and in one read


def peak() -> int:
    """The most memory that this process ever held resident, in bytes, since the last `flatten`."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    pytest.skip("needs VmHWM in /proc/self/status")


def flatten() -> int:
    """Let the peak begin at what is held now, and return it (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


class Bystander:
    """A stream of the other worker: `look` takes one part and compares it."""

    def __init__(self, pool: Pool) -> None:
        self._parts: Generator[int] = pool.stream("count", 1 << 40)
        self._seen = 0
        self.look()

    def look(self) -> None:
        assert next(self._parts) == self._seen
        self._seen += 1

    def __enter__(self) -> Bystander:
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.close()


def wait_for_bytes(pool: Pool) -> None:
    """Until the idle worker has said something that nobody asked for."""
    idle = next(worker for worker in pool._core.supervisor._workers if not worker.call_id)
    assert select.select([idle.channel.answers], [], [], 10)[0], "the worker said nothing more"


def lose(call: Callable[[], Any], bystander: Bystander) -> CallError:
    """The error that `call` ends with, in a thread of its own while the bystander goes on."""
    with ThreadPoolExecutor(1) as executor:
        lost = executor.submit(call)
        while not lost.done():
            bystander.look()
    error = lost.exception()
    assert isinstance(error, CallError), f"it ended with {error!r}, answered {None if error else lost.result()!r}"
    return error


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Pool, Bystander]]:
    """The pool of all cases, and its bystander."""
    often = Restart(intensity=len(CASES), period="1 ms")  # no case is held back for those before it
    with Pool(PEER, workers=2, limits=LIMITS, restart=often, timeout=ALL_SECONDS) as pool, Bystander(pool) as bystander:
        assert pool.call("echo", 0) == 0  # the second worker has come
        yield pool, bystander


def added(pool: Pool, earlier: dict[str, Any]) -> dict[str, Any]:
    """What a case has added to: deaths by reason, calls that ended in a way of which a count grew, bytes of output dropped."""
    status = pool.status()
    return {"deaths": dict(Counter(status["deaths"]) - Counter(earlier["deaths"])),
            "lost": sum(status["ledger"][way] - earlier["ledger"][way] for way in ("lost", "deadline")),
            "cancelled": status["ledger"]["cancelled"] - earlier["ledger"]["cancelled"],
            "dropped": status["output_dropped"] - earlier["output_dropped"]}


def opened() -> dict[int, str]:
    """Descriptor -> what it is, but for files of /proc and of groups, of which the supervisor reads or writes one now and then."""
    found = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return {fd: what for fd, what in found.items() if not what.startswith(("/proc/", "/sys/fs/cgroup/"))}


def cases() -> Iterator[Any]:
    """The catalogue; the first one of each way to end is played as an unprivileged user too."""
    seen: set[tuple[str, str]] = set()
    for case in CASES:
        way = (case["reason"], case.get("by", "call"))
        yield pytest.param(case, id=case["name"].replace(" ", "-"), marks=() if way in seen else pytest.mark.unprivileged)
        seen.add(way)


@pytest.mark.parametrize("case", [*cases()])
def test_a_hostile_worker_is_ended_and_nobody_else_notices(
        case: dict[str, Any], served: tuple[Pool, Bystander], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FIRST_ITEMS", 4)
    calls = 4 - case.get("kept", 0) if case.get("by") == "map" else 1
    pool, bystander = served
    assert pool.call("echo", 1) == 1
    earlier, descriptors, before = pool.status(), opened(), flatten()
    timeout = case.get("timeout", 20)

    def play() -> Any:
        if case.get("by") == "stream":
            return list(pool.stream("play", case["steps"], timeout=timeout))
        if case.get("by") == "map":
            return list(pool.map("play", [case["steps"], [], [], []], timeout=timeout))
        return pool.call("play", case["steps"], timeout=timeout)

    if case.get("answered"):
        assert play() == 1
        wait_for_bytes(pool)
        error = lose(lambda: pool.call("echo", 1, timeout=timeout), bystander)
    else:
        error = lose(play, bystander)
    grown = peak() - before

    if case["reason"] == "deadline":
        assert isinstance(error, DeadlineExceeded), error
    else:
        assert isinstance(error, WorkerLost) and error.reason == case["reason"], error
    assert pool.call("echo", 2) == 2
    found = added(pool, earlier)
    assert (found["deaths"], found["lost"], found["cancelled"]) == ({case["reason"]: 1}, calls, 0)
    assert pool.status()["ledger"]["in_flight"] == 1  # the bystander's
    assert found["dropped"] < OUTPUT_READ_BYTES
    limit = time.monotonic() + 5
    while len(now := opened()) != len(descriptors) and time.monotonic() < limit:
        bystander.look()
    assert len(now) == len(descriptors), {fd: what for fd, what in now.items() if descriptors.get(fd) != what}
    assert grown < PEAK_BYTES
    bystander.look()


def test_each_case_is_named_once() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) >= 30


def test_an_event_loop_goes_on_while_the_death_of_a_hostile_worker_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose() -> int:
        async with AsyncPool(PEER, limits=LIMITS) as pool:
            supervisor, seen = pool._core.supervisor, []
            autopsy = supervisor.autopsy
            monkeypatch.setattr(supervisor, "autopsy", lambda worker: (seen.append(threading.get_ident()), autopsy(worker))[1])
            with pytest.raises(WorkerLost):
                await pool.call("play", [["trailed", "00", {"id": "@id", "ok": True, "body": 1}]])
            return seen[0]

    assert asyncio.run(lose()) != threading.get_ident()


def test_a_worker_that_died_after_the_end_of_its_stream_is_not_lent_again() -> None:
    end = ["messages", {"id": "@id", "part": 1}, {"id": "@id", "ok": True, "body": None}]
    with Pool(PEER, limits=LIMITS) as pool:
        stream = pool.stream("play", [end])
        assert next(stream) == 1  # its end has come too, and is not taken yet
        before = pool.status()["workers"][0]
        os.kill(before["pid"], signal.SIGKILL)
        while [worker["name"] for worker in pool.status()["workers"]] in ([], [before["name"]]):
            pass
        assert list(stream) == []
        assert pool.call("echo", 1) == 1
        ledger = pool.status()["ledger"]
        assert (ledger["ok"], ledger["lost"], ledger["in_flight"]) == (2, 0, 0)
