"""One live worker, as the supervisor and the pool see it. The pool writes `deadline` and `call_id`; nobody else does."""

from __future__ import annotations

import math
import socket
import threading
from typing import TYPE_CHECKING

from pyproc_wire.connection import CallerConnection

if TYPE_CHECKING:
    from pyproc.host.cgroup import Group
    from pyproc.supervisor.death import Death
    from pyproc.supervisor.tree import Tree

READY_BYTES = 1 << 20  # the longest message in which a worker says what it exposes
ENVELOPE_BYTES = 1 << 17  # what stands around a body: ids, and the report of a failure


class Worker:
    """`deadline`: time.monotonic() when the present call must be over, inf when idle; `doomed`: why we killed it."""

    __slots__ = ("abandoned", "call_id", "calls", "connection", "deadline", "death", "doomed", "finished", "group", "inner",
                 "method", "name", "outputs", "pid", "pidfd", "retiring", "sock", "spoken", "spoken_call", "tree", "uid")

    def __init__(self, name: str, tree: Tree, sock: socket.socket, outputs: tuple[int, int],
                 inner: tuple[str, str, str], response_limit: int, request_limit: int) -> None:
        self.name = name
        self.tree = tree
        self.sock = sock
        self.outputs = outputs
        self.inner = inner
        self.connection = CallerConnection(limit=max(response_limit, READY_BYTES) + ENVELOPE_BYTES, request_limit=request_limit)
        self.pid = 0
        self.pidfd = -1
        self.uid = -1
        self.deadline = math.inf
        self.call_id = 0
        self.method = ""
        self.calls = 0
        self.spoken = 0
        self.spoken_call = 0
        self.doomed: str | None = None
        self.retiring = False
        self.abandoned = 0
        self.death: Death | None = None
        self.finished = threading.Event()
        self.group: Group | None = None
