"""The benchmark runner: every workload on every peer that is installed, by turns, pinned and free (`make bench`).

    python bench/run.py [--quick | --rounds N --seconds S] [--only WORD…] [--write RESULT.json] [--plots FOLDER]      measures
    python bench/run.py --show RESULT.json [--plots FOLDER]      shows a result that was written

Rules:
* A cell is a peer, a workload and a placement. It has a process of its own (cell.py), which starts the peer once and waits between
  its rounds; the cells of a workload take turns, so that a change of the machine's speed meets all of them.
* A number is the median of the rounds; the lowest and the highest round are kept beside it. A difference that is smaller than
  that spread is none.
* "pinned": all processes on one core, the path of the processor alone: read it for ratios. "free": the scheduler chooses, and
  where it puts the worker is half of the result: read it for the feel.
* A peer that is not installed, or fails, is named as such; nothing is left out in silence.
* Nothing here is a test: no time fails anything. What guards the call path is tests/integration/test_work_of_a_call.py (ADR 0016).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import facts
import tables
from peers import PEERS
from workloads import WORKLOADS

HERE = Path(__file__).parent
ROUNDS, SECONDS = 7, 0.2
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.05
PLACEMENTS = ("pinned", "free")
ANSWER_SECONDS = 180  # for a round, and to start; a peer that needs longer hangs
END_SECONDS = 10  # for a peer to end what it started


class Cell:
    """A process that measures one peer when it is asked."""

    def __init__(self, peer: str, workload: str, placement: str, seconds: float, *, quick: bool) -> None:
        self.peer = peer
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, HERE / "cell.py", peer, workload, placement, str(seconds), *(["quick"] if quick else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, bufsize=1,
            start_new_session=True)
        self.rounds: list[dict[str, Any]] = []
        self.note = ""  # why there is no number
        first = self._answer()
        if "dash" in first:
            self.note = "-"

    def _answer(self) -> dict[str, Any]:
        there, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)  # an answer is one line, written as a whole
        line = self._process.stdout.readline() if there else ""
        answer = json.loads(line) if line else {"error": "its process ended" if there else f"no answer within {ANSWER_SECONDS} s"}
        if "error" in answer:
            self.note = f"failed: {answer['error'][:200]}"
            self._said.seek(0)
            print(f"{self.peer} failed:\n{self._said.read()[-2000:]}", file=sys.stderr)
        return answer

    def round(self) -> None:
        if self.note:
            return
        self._process.stdin.write("round\n")
        answer = self._answer()
        if not self.note:
            self.rounds.append(answer)

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # its numbers stand
            print(f"{self.peer} did not end within {END_SECONDS} s and was killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def result(self) -> dict[str, Any]:
        """{"note"} or {"points": {point: {metric: {"median", "lowest", "highest"}}}}."""
        if self.note:
            return {"note": self.note}
        return {"points": {point: {metric: summary([one[point][metric] for one in self.rounds]) for metric in metrics}
                           for point, metrics in self.rounds[0].items()}}


def summary(values: list[float]) -> dict[str, float]:
    return {name: float(f"{of(values):.4g}") for name, of in (("median", statistics.median), ("lowest", min), ("highest", max))}


def measure(workload: str, placement: str, rounds: int, seconds: float, *, quick: bool) -> dict[str, Any]:
    """Peer -> its result."""
    found: dict[str, Any] = {name: {"note": "not installed"} for name, entry in PEERS.items() if not entry.installed}
    for apart in (False, True):
        cells: list[Cell] = []
        try:
            for name, entry in PEERS.items():
                if entry.installed and entry.apart is apart:
                    cells.append(Cell(name, workload, placement, seconds, quick=quick))
            for number in range(1 if WORKLOADS[workload].once else rounds):
                for cell in cells if number % 2 else reversed(cells):
                    cell.round()
        finally:
            for cell in cells:
                cell.close()
        found |= {cell.peer: cell.result() for cell in cells}
    return {name: found[name] for name in PEERS}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every workload that was asked for."""
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (options.rounds, options.seconds)
    chosen = [name for name in WORKLOADS if not options.only or any(word in name for word in options.only)]
    found: dict[str, Any] = {"machine": facts.machine(), "date": time.strftime("%Y-%m-%d", time.gmtime()), "rounds": rounds,
                             "round_seconds": seconds, "quick": options.quick, "results": {}}
    for workload in chosen:
        for placement in PLACEMENTS[1:] if WORKLOADS[workload].once else PLACEMENTS:
            print(f"{workload}, {placement}", file=sys.stderr, flush=True)
            found["results"].setdefault(workload, {})[placement] = measure(workload, placement, rounds, seconds, quick=options.quick)
        options.write.write_text(json.dumps(found, indent=1) + "\n", "utf-8")  # an interrupted run keeps what it has
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="measure pyproc, the bare socket and the peers on the same work")
    parser.add_argument("--quick", action="store_true", help="short rounds, fewer points: whether it works, and a rough picture")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="interleaved rounds")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="the length of a round of one point")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only workloads with such a word in their name")
    parser.add_argument("--write", type=Path, metavar="JSON", default=HERE.parent / ".cache" / "bench.json", help="its place")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing, show this result")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the result into this folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the cells are ended on the way out
    options.write.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(options.show.read_text("utf-8")) if options.show else run(options)
    print(tables.text(result))
    if options.plots:
        import plots

        plots.draw(result, options.plots)


if __name__ == "__main__":
    main()
