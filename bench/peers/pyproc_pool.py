"""Ours: `Pool`, profile `strict`, every option left alone but the limits that 100 MiB there and back do not fit into."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from peers import NotOffered
from pyproc import Limits, Pool

SCRIPT = (Path(__file__).resolve().parents[1] / "work.py").read_text("utf-8") + """

from pyproc_worker import expose

for function in (double, echo):
    expose(function)
"""
LIMITS = Limits(memory="4 GiB", cpu_time="1 h", request="256 MiB", response="256 MiB")


class Script:
    """The worker script as a file, for as long as a pool needs it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pyproc-bench-")
        self.path = Path(self._folder.name, "worker.py")
        self.path.write_text(SCRIPT, "utf-8")
        self.close = self._folder.cleanup


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        self._script = Script()
        self._pool = Pool(self._script.path, workers=workers, limits=LIMITS, isolation="call" if fresh else "worker")
        self.call = self._pool.call

    def submit(self, name: str, body: Any) -> Any:
        return self._pool.submit(name, body).result

    def map(self, name: str, bodies: list[Any], chunk: int | None) -> list[Any]:
        if chunk is not None:
            raise NotOffered
        return list(self._pool.map(name, bodies))

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self._pool.status()["workers"]]

    def close(self) -> None:
        self._pool.close()
        self._script.close()
