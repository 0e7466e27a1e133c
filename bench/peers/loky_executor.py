"""loky: an executor whose processes are started by exec, which is what makes it robust."""

from __future__ import annotations

from typing import Any

import work
from loky import ProcessPoolExecutor


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        if fresh:
            raise NotImplementedError
        self._pool = ProcessPoolExecutor(workers)

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
        self._pool.shutdown(kill_workers=True)
