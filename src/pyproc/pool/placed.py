"""Arrays that callers build where a call sends them from: in the request arena of an idle worker.

    empty ──▶ room in an idle worker's arena ──▶ a call with the array prefers that worker ──▶ a reference is sent
                                                  it is busy, or has ended ──▶ another worker, and a copy

A hint and no lease: nothing waits for it and no worker is kept. The room is free again when nobody holds the array any more, which
any thread may be the one to find out, at any moment: it is noted then, and taken back by who next has the worker for itself.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from pyproc.supervisor.state import Worker
from pyproc_wire.limits import ARENA_VALUE_BYTES

if TYPE_CHECKING:
    from pyproc.pool.checkout import Checkout


class Block(NamedTuple):
    """Addresses of the room, and where it begins in the worker's arena."""

    worker: Worker
    start: int
    end: int
    offset: int


class Placed:
    """`blocks` has an entry while there are such arrays."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self._names = itertools.count()
        self._freed: deque[int] = deque()
        self._stale: set[Worker] = set()

    def build(self, worker: Worker | None, shape: Any, dtype: Any) -> Any:
        """An array as numpy.empty makes it, in the arena of `worker`, which is the caller's, or in ordinary memory."""
        import numpy

        kind = numpy.dtype(dtype)
        lengths = (shape,) if isinstance(shape, int) else tuple(shape)
        size = prod(lengths) * kind.itemsize
        room = None
        if worker is not None and size >= ARENA_VALUE_BYTES and min(lengths, default=0) >= 0 and not kind.hasobject:
            self.reclaim(worker)
            room = worker.channel.arena.sender.reserve(size)
        if worker is None or room is None:
            return numpy.empty(shape, dtype)
        region, offset = room
        array = numpy.frombuffer(region, "u1", size, offset)
        start = array.__array_interface__["data"][0]
        name = next(self._names)
        self.blocks[name] = Block(worker, start, start + size, offset)
        weakref.finalize(region, self._freed.append, name).atexit = False
        return array.view(kind).reshape(lengths)

    def wanted(self, body: Any) -> Worker | None:
        """The worker in whose arena an array of `body` lies: the body itself, or an item of it."""
        for array in _arrays(body):
            address = array.__array_interface__["data"][0]
            for block in list(self.blocks.values()):
                if block.start <= address < block.end:
                    return block.worker
        return None

    def reclaim(self, worker: Worker) -> None:
        """Take back the room of what nobody holds any more in the arena of `worker`, which is the caller's."""
        while self._freed:
            block = self.blocks.pop(self._freed.popleft(), None)
            if block is not None:
                self._stale.add(block.worker)
        if worker in self._stale:
            self._stale.discard(worker)
            floor = min((block.offset for block in list(self.blocks.values()) if block.worker is worker), default=None)
            worker.channel.arena.sender.release(floor)


def _arrays(body: Any) -> Iterator[Any]:
    items = body.values() if type(body) is dict else body if type(body) in (list, tuple) else (body,)
    for item in items:
        if hasattr(item, "__array_interface__"):
            yield item


def take(placed: Placed, checkout: Checkout, body: Any) -> Worker | None:
    """An idle worker, the one that an array of `body` lies with if it is among them."""
    worker = checkout.take(placed.wanted(body))
    if worker is not None:
        placed.reclaim(worker)
    return worker
