"""Ours for asyncio: `AsyncPool` on asyncio's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from peers.pyproc_pool import LIMITS, Script
from pyproc import AsyncPool


class Peer:
    PREFETCH = 1

    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        self._script = Script()
        self._runner = asyncio.Runner()
        self._pool = AsyncPool(self._script.path, workers=workers, limits=LIMITS, isolation="call" if fresh else "worker",
                               prefetch=1 if fresh else self.PREFETCH)
        self.run(self._pool.start())
        self.call = self._pool.call

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self._pool.status()["workers"]]

    def close(self) -> None:
        self.run(self._pool.close())
        self._runner.close()
        self._script.close()
