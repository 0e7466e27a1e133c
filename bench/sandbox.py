"""What the sandbox costs: a call in `strict` beside one with the layers off, a worker's start, a worker's memory.

    python bench/sandbox.py RESULT.json [ROUNDS]

Rules:
* A process is fast or slow for its life, by where its address space lies. So each round is a process of its own with two fresh
  pools, which take turns in it; a figure is the median of the rounds, and the lowest and the highest stand beside it.
* The layers that stay on in the pool "off" are those without which it would not start here (`KEPT`); they cost a start and not
  a call.
* A start is timed from the supervisor's order to the pool being told that the worker can be lent, in the supervisor's process. Each
  call of `isolation="call"` makes one; the zygote has numpy loaded.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import facts

from pyproc import Pool, Sandbox
from pyproc.config.options import LAYERS
from pyproc.supervisor.starts import Starts

SCRIPT = "import numpy\nfrom pyproc_worker import expose\n\n@expose\ndef echo(body):\n    return body\n"
KEPT = {"capabilities": "without it the zygote stays root, which its attestation refuses",
        "mount_namespace": "without it a worker's uid may not be able to reach the interpreter"}
BODY = {"value": 42}
TURNS, CALLS = 12, 400  # in a round: turns of each pool, calls in a turn
STARTS = 120


def calls(script: Path) -> dict[str, float]:
    """Microseconds of a call in each pool, and their ratio: one round."""
    off = Sandbox(layers={name: "off" for name in LAYERS if name not in KEPT})
    taken: dict[str, list[int]] = {"strict": [], "off": []}
    with Pool(script) as strict, Pool(script, sandbox=off) as bare:
        pools = {"strict": strict, "off": bare}
        for pool in pools.values():
            _calls(pool)
        for turn in range(TURNS):
            for name in sorted(pools, reverse=bool(turn % 2)):
                taken[name] += _calls(pools[name])
    p50 = {name: statistics.median(times) / 1000 for name, times in taken.items()}
    return {"strict_us": p50["strict"], "off_us": p50["off"], "ratio": p50["strict"] / p50["off"]}


def _calls(pool: Pool) -> list[int]:
    call, clock, taken = pool.call, time.perf_counter_ns, []
    for _ in range(CALLS):
        begin = clock()
        answer = call("echo", BODY)
        taken.append(clock() - begin)
        assert answer == BODY
    return taken


def starts(script: Path) -> dict[str, float]:
    """Milliseconds of a worker's start: one round."""
    ordered, taken = [0], []
    ask = Starts.ask

    def timed(self: Starts, tree: Any) -> None:
        ordered[0] = time.perf_counter_ns()
        ask(self, tree)

    Starts.ask = timed
    with Pool(script, max_requests=1) as pool:  # the next call waits for the start, and nothing else goes on
        tell = pool._core.worker_ready

        def told(worker: Any) -> None:
            taken.append(time.perf_counter_ns() - ordered[0])
            tell(worker)

        pool._core.worker_ready = told
        while len(taken) < STARTS:
            pool.call("echo", BODY)
    taken.sort()
    return {"p50_ms": taken[len(taken) // 2] / 1e6, "p99_ms": taken[len(taken) * 99 // 100] / 1e6}


def memory(script: Path) -> dict[str, float]:
    """KiB of a worker with numpy loaded that has answered 1,000 calls, of its zygote and of this process: one round."""
    with Pool(script) as pool:
        for _ in range(1000):
            pool.call("echo", BODY)
        state = pool.status()
        worker, zygote = facts.memory_kib(state["workers"][0]["pid"]), facts.memory_kib(state["zygotes"][0])
    return {"worker_private_kib": worker["private"], "worker_pss_kib": worker["pss"], "zygote_private_kib": zygote["private"],
            "zygote_pss_kib": zygote["pss"]}


ROUNDS = {"calls": calls, "starts": starts, "memory": memory}


def run(what: str, placement: str) -> dict[str, float]:
    """One round in a process of its own."""
    command = [sys.executable, __file__, "--round", what, placement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Name -> median, lowest, highest."""
    return {name: {"median": round(statistics.median(values), 4), "lowest": round(min(values), 4), "highest": round(max(values), 4)}
            for name in rounds[0] for values in [[one[name] for one in rounds]]}


def main(result: Path, count: int) -> None:
    """Measure, interleaved; print and write."""
    found: dict[str, Any] = {"machine": facts.machine(), "rounds": count, "calls_in_a_round": TURNS * CALLS,
                             "starts_in_a_round": STARTS, "layers_kept_in_off": KEPT}
    cells = [(what, placement) for placement in ("pinned", "free") for what in ("calls", "starts")] + [("memory", "free")]
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    for _ in range(count):
        for cell in cells:
            rounds[cell].append(run(*cell))
    for what, placement in cells:
        found.setdefault(what, {})[placement] = summary(rounds[what, placement])
        for name, one in found[what][placement].items():
            print(f"{what:8}{placement:8}{name:20}{one['median']:10.3f}   {one['lowest']:.3f} to {one['highest']:.3f}")
    result.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--round":
        if sys.argv[3] == "pinned":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with tempfile.TemporaryDirectory(prefix="pyproc-bench-") as folder:
            Path(folder, "worker.py").write_text(SCRIPT, "utf-8")
            print(json.dumps(ROUNDS[sys.argv[2]](Path(folder, "worker.py"))))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9)
