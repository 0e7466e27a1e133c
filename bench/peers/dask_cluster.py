"""Dask: a local cluster of one-thread processes; a call is `submit` and `result`."""

from __future__ import annotations

import os
from typing import Any

import work
from distributed import Client, LocalCluster

from peers import NotOffered


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        if fresh:
            raise NotOffered
        self._cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        self._client = Client(self._cluster)

    def call(self, name: str, body: Any) -> Any:
        return self._client.submit(getattr(work, name), body, pure=False).result()

    def submit(self, name: str, body: Any) -> Any:
        return self._client.submit(getattr(work, name), body, pure=False).result

    def map(self, name: str, bodies: list[Any], chunk: int | None) -> list[Any]:
        options = {} if chunk is None else {"batch_size": chunk}
        return self._client.gather(self._client.map(getattr(work, name), bodies, pure=False, **options))

    def pids(self) -> list[int]:
        return list(self._client.run(os.getpid).values())

    def close(self) -> None:
        self._client.close()
        self._cluster.close()
