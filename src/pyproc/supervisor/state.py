"""What lives: one worker as the supervisor and the pool see it, and the population of one pool.

The pool writes `deadline`, `call_id`, `method`, `calls`, `placed` and `parked` of a worker; nobody else does. The population
belongs to the
supervision thread; other threads read copies of it.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from pyproc.supervisor.park import Park
from pyproc_wire.connection import CallerConnection
from pyproc_wire.limits import READY_BYTES

if TYPE_CHECKING:
    from pyproc.errors import PyprocError
    from pyproc.host.cgroup import Group
    from pyproc.supervisor.death import Death
    from pyproc.supervisor.groups import Groups
    from pyproc.supervisor.loop import Loop, Timer
    from pyproc.supervisor.outfit import Outfit
    from pyproc.supervisor.spec import WorkerSpec
    from pyproc.supervisor.tree import Tree

ENVELOPE_BYTES = 1 << 17  # what stands around a body: ids, and the report of a failure


def call_ids() -> Iterator[int]:
    """Numbers for calls, of 64 bits but 0, without end; nobody can guess the next one."""
    return filter(None, chain.from_iterable(map(struct.Struct("64Q").unpack, iter(partial(os.urandom, 512), b""))))


class Worker:
    """`deadline`: time.monotonic() when the present call must be over, if there is one; `allowed`: seconds that it had as a whole;
    `doomed`: why we killed it; `joined`: the process that entered the group; `placed`: it has one of the pool's places;
    `parked`: it waits for one; `late`: ends a start that takes too long; `holding`:
    the pidfd is not closed while it is held; `milestone`: the count of calls at which something is due; `ids`: of calls, which the
    worker cannot guess, so that an answer before its question fits none; `viewed`: its last result is being looked at where it lies;
    `returned`: it was given back while it was ending already; `part_seconds`: what the part that is awaited may take, where that is
    less than what the call has left, else 0."""

    __slots__ = ("abandoned", "allowed", "call_id", "calls", "channel", "connection", "deadline", "death", "doomed", "finished",
                 "group", "holding", "ids", "inner_pid", "joined", "late", "links", "method", "milestone", "name", "outputs", "parked",
                 "part_seconds", "returned",
                 "pid", "pidfd", "placed", "spoken", "spoken_call", "tree", "viewed", "__weakref__")

    def __init__(self, tree: Tree, outfit: Outfit, response_limit: int, request_limit: int) -> None:
        self.name = outfit.name
        self.tree = tree
        self.channel = outfit.channel
        self.outputs: tuple[int, ...] = outfit.outputs
        self.links = outfit.links
        self.group: Group | None = None
        arena = outfit.channel.arena
        self.connection = CallerConnection(limit=max(response_limit, READY_BYTES) + ENVELOPE_BYTES, request_limit=request_limit,
                                           sender=arena.sender if arena.there else None,
                                           receiver=arena.receiver if arena.there else None)
        self.pid = self.inner_pid = 0
        self.pidfd = -1
        self.joined = 0
        self.late: Timer | None = None
        self.deadline = math.inf
        self.allowed = math.inf
        self.call_id = 0
        self.method = ""
        self.calls = 0
        self.milestone: float = 1
        self.spoken = 0
        self.spoken_call = 0
        self.doomed: str | None = None
        self.abandoned = 0
        self.death: Death | None = None
        self.finished = threading.Event()
        self.holding = threading.Lock()
        self.ids = call_ids()
        self.viewed = self.returned = False
        self.part_seconds = 0.0
        self.placed = False
        self.parked = False


class Population:
    """`wanted` workers are kept alive, parked ones among them, `full` where no deaths are in the way;
    `trees` live, those of `ending` have a keeper that has not ended yet; `broken`: why nothing
    is started any more; `first`: set when the first worker serves or it is clear that none will."""

    def __init__(self, workers: int, parked: int = 0) -> None:
        self._lent = workers
        self.park = Park(parked)
        self.wanted = self.full
        self.workers: set[Worker] = set()
        self.trees: list[Tree] = []
        self.ending: list[Tree] = []
        self.broken: PyprocError | None = None
        self.closing = False
        self.first = threading.Event()

    @property
    def full(self) -> int:
        """The workers that may be lent at the same time, and those that are parked."""
        return self._lent + self.park.size


class Shared(NamedTuple):
    """What starts and ends work on."""

    spec: WorkerSpec
    population: Population
    loop: Loop
    groups: Groups
