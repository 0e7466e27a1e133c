"""pebble: a pool whose calls can time out, and whose workers are killed for it."""

from __future__ import annotations

import multiprocessing
from typing import Any

import work
from pebble import ProcessPool


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        self._pool = ProcessPool(workers, max_tasks=1 if fresh else 0)

    def call(self, name: str, body: Any) -> Any:
        return self._pool.schedule(getattr(work, name), args=(body,)).result()

    def submit(self, name: str, body: Any) -> Any:
        return self._pool.schedule(getattr(work, name), args=(body,)).result

    def map(self, name: str, bodies: list[Any], chunk: int | None) -> list[Any]:
        options = {} if chunk is None else {"chunksize": chunk}
        return list(self._pool.map(getattr(work, name), bodies, **options).result())

    def pids(self) -> list[int]:
        return [process.pid for process in multiprocessing.active_children()]

    def close(self) -> None:
        self._pool.close()
        self._pool.join()
