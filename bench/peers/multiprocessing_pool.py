"""`multiprocessing.Pool` of the standard library, with the interpreter's default way of starting processes."""

from __future__ import annotations

import multiprocessing
from typing import Any

import work


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        self._pool = multiprocessing.Pool(workers, maxtasksperchild=1 if fresh else None)

    def call(self, name: str, body: Any) -> Any:
        return self._pool.apply(getattr(work, name), (body,))

    def submit(self, name: str, body: Any) -> Any:
        return self._pool.apply_async(getattr(work, name), (body,)).get

    def map(self, name: str, bodies: list[Any], chunk: int | None) -> list[Any]:
        return self._pool.map(getattr(work, name), bodies, chunk)

    def pids(self) -> list[int]:
        return [process.pid for process in self._pool._pool]

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()
