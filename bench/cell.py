"""The process of one cell: one peer, one workload, one placement. Started by run.py; nothing of another peer is in it.

    run.py                                   cell.py PEER WORKLOAD PLACEMENT SECONDS [quick]
       | <------------ {"points": […]} or {"dash": true} or {"error": "…"} ------- |   one JSON text in a line
       | -- "round" -----------------------------------------------------------> |
       | <------------ {point: {metric: number}} or {"error": "…"} --------------- |
       | -- (end of file) ------------------------------------------------------> |   it ends what it started
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import workloads
from peers import PEERS, NotOffered


class Cell:
    """One peer that serves, and the calibrated workload."""

    def __init__(self, peer: str, workload: str, seconds: float, *, quick: bool) -> None:
        make = importlib.import_module(f"peers.{PEERS[peer].file}").Peer
        self._workload = workloads.WORKLOADS[workload](quick=quick)
        if not all(hasattr(make, need) or need == "call" for need in self._workload.needs):
            raise NotOffered
        self._peer = self._workload.open(make)
        self._counts: dict[str, int] = {}
        for point in self._workload.points:
            try:
                self._counts[point] = workloads.calibrated(self._workload, self._peer, point, seconds)
            except NotOffered:  # it has this workload, but not this point of it
                continue

    @property
    def points(self) -> list[str]:
        return list(self._counts)

    def round(self) -> dict[str, Any]:
        return {point: self._workload.measure(self._peer, point, count) for point, count in self._counts.items()}

    def close(self) -> None:
        if hasattr(self._peer, "close") and not isinstance(self._peer, type):
            self._peer.close()


def main() -> None:
    """Answer the runner. What a peer prints does not come between."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer, workload, placement, seconds, *quick = sys.argv[1:]
    if placement == "pinned":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["PYTHONPATH"] = sys.path[0]  # for workers that are started by exec
    try:
        cell = Cell(peer, workload, float(seconds), quick=bool(quick))
    except NotOffered:
        print(json.dumps({"dash": True}), file=answers)
        return
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        raise
    print(json.dumps({"points": cell.points}), file=answers)
    while os.read(0, 64):  # not by sys.stdin, whose lock a process that is forked meanwhile would wait for
        try:
            print(json.dumps(cell.round()), file=answers)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
            raise
    cell.close()


if __name__ == "__main__":
    main()
