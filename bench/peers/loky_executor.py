"""loky: an executor whose processes are started by exec, which is what makes it robust. Called as the standard library's."""

from __future__ import annotations

from loky import ProcessPoolExecutor

from peers import NotOffered, process_pool_executor


class Peer(process_pool_executor.Peer):
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        if fresh:
            raise NotOffered
        self._pool = ProcessPoolExecutor(workers)

    def close(self) -> None:
        self._pool.shutdown(kill_workers=True)
