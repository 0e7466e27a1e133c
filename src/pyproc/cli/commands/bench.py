"""`pyproc bench`: a call's latency here, beside the bare ping-pong of the same bytes.

Rounds of both are interleaved, so that a change of the machine's speed meets both; a number is the median of the
rounds' medians. "pinned": all processes on one core; "free": the scheduler chooses.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from pyproc.cli import output, target
from pyproc.cli.pingpong import PingPong
from pyproc_wire.connection import CallerConnection, WorkerConnection

SCRIPT = "from pyproc_worker import expose\n\n\n@expose\ndef echo(body):\n    return body\n"
BODY = {"value": 42}
CALLS = 1000  # in a round
WARM_UP = 200
DEADLINE_MS = 30_000


class Rounds(click.IntRange):
    """What --rounds takes, by the name that a refusal says."""

    name = "whole number from 1 to 1000"


@click.command(short_help="Measure a call's latency here.")
@click.option("--rounds", type=Rounds(1, 1000), default=9, show_default=True, metavar="N", help="Interleaved rounds.")
@target.shared
def command(rounds: int, config: str | None, *, as_json: bool) -> None:
    """Measure a tiny call through a strict sandbox beside the bare ping-pong of two Python processes."""
    found = measure(rounds)
    if as_json:
        output.write(output.encode({"ok": True, "rounds": rounds, "calls": CALLS, **found}))
        return
    rows: list[tuple[str, ...]] = [("", "CALL us", "PING-PONG us", "RATIO", "READY ms")]
    rows += [(name, *(f"{found[name][key]:.2f}" for key in ("call_us", "pingpong_us", "ratio", "ready_ms")))
             for name in ("pinned", "free")]
    output.write(output.table(rows))


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """"pinned" and "free" -> call_us, pingpong_us, ratio, ready_ms."""
    free = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="pyproc-bench-") as folder:
        script = Path(folder, "worker.py")
        script.write_text(SCRIPT, "utf-8")
        try:
            os.sched_setaffinity(0, {min(free)})
            pinned = _compare(script, rounds)
        finally:
            os.sched_setaffinity(0, free)
        return {"pinned": pinned, "free": _compare(script, rounds)}


def _compare(script: Path, rounds: int) -> dict[str, float]:
    from pyproc import Pool

    begin = time.perf_counter()
    with Pool(script) as pool:
        ready = time.perf_counter() - begin
        with PingPong(*_bytes()) as floor:
            calls, floors = [], []
            _calls(pool, WARM_UP)
            floor.measure(WARM_UP)
            for _ in range(rounds):
                floors.append(statistics.median(floor.measure(CALLS)))
                calls.append(statistics.median(_calls(pool, CALLS)))
    call, bare = statistics.median(calls), statistics.median(floors)
    ratio = statistics.median(one / other for one, other in zip(calls, floors, strict=True))
    return {"call_us": call / 1000, "pingpong_us": bare / 1000, "ratio": ratio, "ready_ms": ready * 1000}


def _calls(pool: Any, count: int) -> list[int]:
    call, clock, body = pool.call, time.perf_counter_ns, BODY
    taken = []
    for _ in range(count):
        begin = clock()
        call("echo", body)
        taken.append(clock() - begin)
    return taken


def _bytes() -> tuple[bytes, bytes]:
    """The request and the answer of such a call, as they cross the boundary."""
    caller, worker = CallerConnection(), WorkerConnection()
    caller.receive(worker.ready({}))
    request = caller.request(1, "echo", BODY, deadline_ms=DEADLINE_MS)
    worker.receive(request)
    return request, worker.success(1, BODY)
