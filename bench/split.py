"""Where the microseconds of a short call go, all ends on one core.

    python bench/split.py RESULT.json [ROUNDS]

Four things take turns, with the same bytes over the same kind of channel:

    pipes     two processes that read and write, and nothing else            = the kernel, and Python's two calls of it on each side
    worker    a real worker in `strict`, a caller that only reads and writes - pipes  = the worker: its codec, its loop, the function
    call      `pool.call`                                                    - worker = the caller: its codec, the pool
    codec     what both ends encode and decode for a call, without any process

So the parts add up to the call. Each round is a process of its own with a fresh pool (see sandbox.py); a part is the median of the
rounds' differences.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import facts
from sandbox import summary

from pyproc import Pool
from pyproc_wire.connection import CallerConnection, WorkerConnection
from pyproc_wire.limits import RECV_BYTES

SCRIPT = "from pyproc_worker import expose\n\n@expose\ndef echo(body):\n    return body\n"
BODY = {"value": 42}
TURNS, CALLS = 12, 400  # in a round: turns of each, calls in a turn
DEADLINE_MS = 30_000


def frames() -> tuple[bytes, bytes]:
    """The request and the answer of such a call as they cross the boundary."""
    caller, worker = CallerConnection(), WorkerConnection()
    caller.receive(worker.ready({}))
    request = caller.request(1, "echo", BODY, DEADLINE_MS)
    assert worker.brief(request) is not None
    return request, worker.success(1, BODY)


class Pipes:
    """A forked process that answers each message with the same bytes, over two pipes."""

    def __init__(self, answer: bytes) -> None:
        theirs, self.requests = os.pipe()
        self.answers, ours = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.requests)
            os.close(self.answers)
            read, write = os.read, os.write
            while read(theirs, RECV_BYTES):
                write(ours, answer)
            os._exit(0)
        os.close(theirs)
        os.close(ours)

    def close(self) -> None:
        os.close(self.requests)
        os.close(self.answers)
        os.waitpid(self.pid, 0)


def round_trips(requests: int, answers: int, request: bytes) -> list[int]:
    """Nanoseconds of each."""
    read, write, clock, taken = os.read, os.write, time.perf_counter_ns, []
    for _ in range(CALLS):
        begin = clock()
        write(requests, request)
        read(answers, RECV_BYTES)
        taken.append(clock() - begin)
    return taken


def calls(pool: Pool) -> list[int]:
    call, clock, taken = pool.call, time.perf_counter_ns, []
    for _ in range(CALLS):
        begin = clock()
        call("echo", BODY)
        taken.append(clock() - begin)
    return taken


def codec() -> dict[str, float]:
    """Microseconds that each end encodes and decodes for a call."""
    caller, worker = CallerConnection(), WorkerConnection()
    caller.receive(worker.ready({}))
    clock, taken = time.perf_counter_ns, {"caller": [], "worker": []}
    for id in range(1, TURNS * CALLS):
        begin = clock()
        request = caller.request(id, "echo", BODY, DEADLINE_MS)
        encoded = clock()
        worker.brief(request)
        answer = worker.success(id, BODY)
        answered = clock()
        caller.brief(answer)
        end = clock()
        taken["caller"].append(encoded - begin + end - answered)
        taken["worker"].append(answered - encoded)
    nothing = statistics.median(after - before for before, after in [(clock(), clock()) for _ in range(CALLS)])
    return {"caller": (statistics.median(taken["caller"]) - 2 * nothing) / 1000,
            "worker": (statistics.median(taken["worker"]) - nothing) / 1000}


def one_round(script: Path) -> dict[str, float]:
    """Name of a part -> microseconds."""
    request, answer = frames()
    pipes = Pipes(answer)
    with Pool(script) as pool:
        calls(pool)
        worker = pool._core.checkout.take()
        assert worker is not None
        channel = worker.channel
        pool._core.checkout.give(worker)
        ways: dict[str, Callable[[], list[int]]] = {
            "pipes": lambda: round_trips(pipes.requests, pipes.answers, request),
            "worker": lambda: round_trips(channel.requests, channel.answers, request),
            "call": lambda: calls(pool),
        }
        taken: dict[str, list[int]] = {name: [] for name in ways}
        for turn in range(TURNS):
            for name in sorted(ways, reverse=bool(turn % 2)):
                taken[name] += ways[name]()
    pipes.close()
    p50 = {name: statistics.median(times) / 1000 for name, times in taken.items()}
    coded = codec()
    return {"call": p50["call"], "kernel": p50["pipes"], "worker: codec": coded["worker"],
            "worker: loop and function": p50["worker"] - p50["pipes"] - coded["worker"], "caller: codec": coded["caller"],
            "caller: pool": p50["call"] - p50["worker"] - coded["caller"]}


def main(result: Path, count: int) -> None:
    rounds = []
    machine = facts.machine()
    for _ in range(count):
        done = subprocess.run([sys.executable, __file__, "--round"], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        rounds.append(json.loads(done.stdout))
    found = summary(rounds)
    for name, one in found.items():
        print(f"{name:28}{one['median']:8.2f}   {one['lowest']:.2f} to {one['highest']:.2f}")
    written = {"machine": machine, "rounds": count, "calls_in_a_round": TURNS * CALLS, "us": found}
    result.write_text(json.dumps(written, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--round":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with tempfile.TemporaryDirectory(prefix="pyproc-bench-") as folder:
            Path(folder, "worker.py").write_text(SCRIPT, "utf-8")
            print(json.dumps(one_round(Path(folder, "worker.py"))))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9)
