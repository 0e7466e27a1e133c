"""What one short call costs at each end, counted and not timed, so that the hot path does not grow unseen.

Two counts, of the thread that calls and of the worker in its sandbox, both by the interpreter's own tracing:

* Bytecode instructions: of each call the interpreter tells every one. They depend on the minor version, so the baseline is a table.
* Calls of functions written in C, by name: what bytecode does not show. `read` and `write` among them are all the system calls.

Most calls cost the same to the instruction, however loaded the machine is. Some do more: a look-out or new call ids, once in 64 calls.
The cheapest of 128 stands for all, and everything is on one core, where a look-out ends at once.

Rejected: processor counters (`perf stat -e instructions:u`): most virtual machines, and so most that test, have none; callgrind: it
needs 4 s to start an interpreter and cannot follow a worker through its walls. Neither has a baseline that holds for two builds of
CPython; these counts hold for all builds of a minor version.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyproc import Pool
from pyproc.pool.core import Core

MEASURED, WARM_UP = 128, 64  # calls
MORE = 1.05  # what is too much
BASELINE = {(3, 11): {"caller": 441, "worker": 377}, (3, 13): {"caller": 400, "worker": 341}}  # 3.12.1 tells none in a worker
C_CALLS = {
    "caller": "next monotonic items encode len len pack len write read len decode pop append",
    "worker": "append acquire len items encode len len pack write len read len decode get monotonic release len",
}

SCRIPT = """
import sys
from pyproc_worker import expose

EXTRA = 0
instructions, c_calls, found = 0, [], []


def trace(frame, event, argument):
    global instructions
    frame.f_trace_opcodes = True
    if event == "opcode":
        instructions += 1
    return trace


def profile(frame, event, function):
    if event == "c_call":
        c_calls.append(function.__name__)


@expose
def echo(body):
    found.append((instructions, len(c_calls)))
    for _ in range(EXTRA):
        pass
    return body


@expose
def counted():
    return {"instructions": [number for number, _ in found], "c_calls": [c_calls[a:b] for (_, a), (_, b) in zip(found, found[1:])]}


sys.setprofile(profile)
sys.settrace(trace)
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o755)
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(free)})  # the pool's processes and threads are started by this thread, and inherit it
    yield path
    os.sched_setaffinity(0, free)


def cost_of_a_call(script: Path) -> dict[str, tuple[int, str]]:
    """End -> instructions, names of the C functions that are called."""
    instructions, c_calls = 0, []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal instructions
        frame.f_trace_opcodes = True
        if event == "opcode":
            instructions += 1
        return trace

    def profile(frame: Any, event: str, function: Any) -> None:
        if event == "c_call":
            c_calls.append(function.__name__)

    def call() -> tuple[int, str]:
        nonlocal instructions
        instructions = 0
        c_calls.clear()
        before = sys.gettrace(), sys.getprofile()
        sys.setprofile(profile)
        sys.settrace(trace)
        try:
            pool.call("echo", {"value": 42})
        finally:
            sys.settrace(before[0])
            sys.setprofile(before[1])
        names = [name for name in c_calls if name not in ("settrace", "setprofile")]
        return instructions, " ".join(names)

    with Pool(script) as pool:
        for _ in range(WARM_UP):
            pool.call("echo", {"value": 42})
        caller = [call() for _ in range(MEASURED)]
        told = pool.call("counted")
    numbers = told["instructions"]
    worker = [(b - a, " ".join(names)) for a, b, names in zip(numbers, numbers[1:], told["c_calls"], strict=False)][-MEASURED:]
    return {"caller": min(caller), "worker": min(worker)}


def grown(found: dict[str, tuple[int, str]], baseline: dict[str, int]) -> list[str]:
    """What is too much, in words."""
    wrong = [f"{end}: {found[end][0]} instructions a call, {number} were written down" for end, number in baseline.items()
             if found[end][0] > MORE * number]
    wrong += [f"{end} calls {', '.join(more)} besides" for end, known in C_CALLS.items()
              if (more := sorted((Counter(found[end][1].split()) - Counter(known.split())).elements()))]
    return wrong


def baseline() -> dict[str, int]:
    version = sys.version_info[:2]
    if version not in BASELINE:
        pytest.skip(f"bytecode of Python {version[0]}.{version[1]} has no baseline")
    return BASELINE[version]


def test_a_call_does_no_more_than_was_written_down(script: Path) -> None:
    wrong = grown(cost_of_a_call(script), baseline())
    assert not wrong, f"{wrong}: make the call path cheaper, or write the new number down and say in the commit what it buys"


def test_more_work_in_the_caller_is_seen(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, succeeded = baseline(), Core.succeeded

    def slower(core: Core, worker: Any, output: int) -> None:
        for _ in range(20):
            pass
        succeeded(core, worker, output)

    monkeypatch.setattr(Core, "succeeded", slower)
    (wrong,) = grown(cost_of_a_call(script), numbers)
    assert wrong.startswith("caller: ")


def test_more_work_in_the_worker_is_seen(script: Path) -> None:
    numbers = baseline()
    script.write_text(SCRIPT.replace("EXTRA = 0", "EXTRA = 20"))
    (wrong,) = grown(cost_of_a_call(script), numbers)
    assert wrong.startswith("worker: ")


def test_a_further_system_call_is_seen(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, succeeded = baseline(), Core.succeeded

    def slower(core: Core, worker: Any, output: int) -> None:
        os.getpid()
        succeeded(core, worker, output)

    monkeypatch.setattr(Core, "succeeded", slower)
    assert "caller calls getpid besides" in grown(cost_of_a_call(script), numbers)
