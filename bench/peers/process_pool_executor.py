"""`concurrent.futures.ProcessPoolExecutor` of the standard library. It makes fresh processes only where they are not forked."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import work


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        options = {"mp_context": multiprocessing.get_context("forkserver"), "max_tasks_per_child": 1} if fresh else {}
        self._pool = ProcessPoolExecutor(workers, **options)

    def call(self, name: str, body: Any) -> Any:
        return self._pool.submit(getattr(work, name), body).result()

    def submit(self, name: str, body: Any) -> Any:
        return self._pool.submit(getattr(work, name), body).result

    def map(self, name: str, bodies: list[Any], chunk: int | None) -> list[Any]:
        options = {} if chunk is None else {"chunksize": chunk}
        return list(self._pool.map(getattr(work, name), bodies, **options))

    def pids(self) -> list[int]:
        return list(self._pool._processes)

    def close(self) -> None:
        self._pool.shutdown()
