"""Ray: an actor for each worker, taken by turns; a call is a remote method and `ray.get`."""

from __future__ import annotations

import itertools
import os
from typing import Any

import ray
import work

from peers import NotOffered


class Actor:
    """A worker."""

    def double(self, body: Any) -> Any:
        return work.double(body)

    def echo(self, body: Any) -> Any:
        return work.echo(body)

    def pid(self) -> int:
        return os.getpid()


class Peer:
    def __init__(self, workers: int, *, fresh: bool = False) -> None:
        if fresh:
            raise NotOffered
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        self._actors = [ray.remote(Actor).remote() for _ in range(workers)]
        self._turn = itertools.cycle(self._actors)

    def call(self, name: str, body: Any) -> Any:
        return ray.get(getattr(next(self._turn), name).remote(body))

    def submit(self, name: str, body: Any) -> Any:
        promise = getattr(next(self._turn), name).remote(body)
        return lambda: ray.get(promise)

    def map(self, name: str, bodies: list[Any], chunk: int | None) -> list[Any]:
        if chunk is not None:
            raise NotOffered
        return ray.get([getattr(next(self._turn), name).remote(body) for body in bodies])

    def pids(self) -> list[int]:
        return ray.get([actor.pid.remote() for actor in self._actors])

    def close(self) -> None:
        ray.shutdown()
