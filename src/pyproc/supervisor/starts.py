"""Starts: trees are booted, workers forked, attested, bounded and announced; one at a time in each tree.

```
ask: request ──▶ zygote forks (asked)   ──▶ child: own namespace (asked), Landlock (asked), filter (asked) ──▶ ready
                   meanwhile its group is made        meanwhile it is put into its group           on its greeting socket
greeted: who sent it, by the kernel ─ its limits ─ attested from /proc ─▶ announced to the pool
```

The supervisor works while the others do: a group is made ahead, or while the zygote forks, and joined while the child confines
itself. Nothing of that is believed: the attestation at the end looks at the process that greeted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from pyproc.errors import ProtectionUnavailable, PyprocError, Unavailable
from pyproc.host import credentials, pidfd
from pyproc.link import handshake
from pyproc.supervisor.outfit import Outfit
from pyproc.supervisor.output import printable
from pyproc.supervisor.state import Shared, Worker
from pyproc.supervisor.tree import Owner as TreeOwner
from pyproc.supervisor.tree import Tree
from pyproc_wire.limits import RECV_BYTES

log = logging.getLogger("pyproc")


class Owner(Protocol):
    """Whom the starts tell how they ended."""

    def started(self, worker: Worker, functions: dict[str, Any]) -> None: ...
    def refused(self, worker: Worker | None) -> None: ...
    def tree_lost(self, tree: Tree, error: PyprocError) -> None: ...
    def broke(self, error: PyprocError) -> None: ...
    def condemn(self, worker: Worker, reason: str) -> None: ...
    def spoke(self, source: str, text: bytes) -> None: ...


class Patience(NamedTuple):
    """Seconds until a zygote must have loaded the script, and until a worker must be ready."""

    boot: float
    start: float


class Starts:
    """Keeps as many workers coming as the population wants. `plant(owner)` makes a tree."""

    def __init__(self, owner: Owner, shared: Shared, plant: Callable[[TreeOwner], Tree], patience: Patience) -> None:
        self._owner = owner
        self._spec, self._population, self._loop, self._groups = shared
        self._plant = plant
        self._patience = patience
        self._made = 0
        self._functions: dict[str, Any] = {}

    def boot(self) -> None:
        """Make the trees that are missing."""
        wanted = self._population.wanted if self._spec.solo else 1
        while len(self._population.trees) < wanted and not self._population.closing:
            try:
                tree = self._plant(self)
            except PyprocError as error:
                self._owner.broke(error)
                return
            except OSError as error:  # no descriptor, no process or no memory is left
                self._not_booted(error)
                return
            self._population.trees.append(tree)
            self._loop.later(self._patience.boot, partial(self._overdue, tree))

    def _not_booted(self, error: OSError) -> None:
        log.error("start_failed pool=%s cause=%s", self._spec.name, printable(str(error)))
        if self._population.first.is_set():
            self._owner.refused(None)
        else:
            self._owner.broke(Unavailable(f"no zygote can be started: {error}; free or raise what the machine ran out of, "
                                          "`ulimit -n` for descriptors"))

    def fill(self) -> None:
        """Ask for one worker of each tree that has room; the next one is asked for when it has come."""
        if self._population.closing or self._population.broken is not None:
            return
        room = 1 if self._spec.solo else self._population.wanted
        for tree in self._population.trees:
            alive = sum(1 for worker in tree.workers if worker.doomed is None)
            if tree.ready and not tree.closed and tree.starting is None and alive < room:
                self.ask(tree)

    def ask(self, tree: Tree) -> None:
        """Ask `tree` for a worker."""
        try:
            outfit = Outfit(f"w{self._made + 1}", self._spec.limits.request, self._spec.limits.response, self._spec.ahead,
                            self._spec.busy_polling)
        except OSError as error:
            self._not_outfitted(error)
            return
        self._made += 1
        worker = Worker(tree, outfit, self._spec.limits.response, self._spec.limits.request)
        self._population.workers.add(worker)
        tree.workers.add(worker)
        late = f"it was not ready within {self._patience.start:.0f} s"
        worker.late = self._loop.later(self._patience.start, partial(self.refuse, worker, late))
        try:
            tree.fork(worker, outfit)
        except OSError:
            tree.started()  # the zygote is ending, and its keeper tells
        finally:
            outfit.lent()

    def _not_outfitted(self, error: OSError) -> None:
        population = self._population
        spare = sum(worker.doomed is None for worker in population.workers) - self._spec.workers
        if spare < 0:
            log.error("start_failed pool=%s cause=%s", self._spec.name, printable(str(error)))
            self._owner.refused(None)
            return
        log.warning("park_short pool=%s parked=%d cause=%s", self._spec.name, spare, printable(str(error)))
        population.park.short(spare)  # all that may be lent are there, so that this is no death
        population.wanted = min(population.wanted, population.full)

    def greeted(self, worker: Worker) -> None:
        """A new worker's first message: who is it, is it confined as planned, what does it expose."""
        try:
            greeting = credentials.receive(worker.channel.greeting, RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            greeting = credentials.Greeting(b"", 0, 0, -1, False)
        if worker.pidfd < 0:
            worker.pid, worker.pidfd = greeting.pid, greeting.pidfd
        elif greeting.pidfd >= 0:
            os.close(greeting.pidfd)
        if greeting.surplus:
            self.refuse(worker, "it sent descriptors with its first message")
            return
        if not greeting.data or greeting.pid != worker.pid:
            self.refuse(worker, "it hung up, or another process spoke, before it was ready")
            return
        try:
            functions = handshake.greet(worker.connection, greeting.data, self._functions)
        except handshake.Refused as error:
            self.refuse(worker, str(error))
            return
        if functions is None:
            return
        self._functions = functions
        wrong = self._bound(worker) or self._attest(worker)
        if wrong:
            self.refuse(worker, wrong)
        else:
            self._announce(worker, functions)

    def _announce(self, worker: Worker, functions: dict[str, Any]) -> None:
        self._loop.unwatch(worker.channel.greeting.fileno())
        worker.channel.greeting.close()
        self._over(worker)
        self._owner.started(worker, functions)
        self.fill()
        if "cgroup" in worker.tree.layers:
            self._loop.later(0, self._prepare_group)

    def _prepare_group(self) -> None:
        if not self._population.closing:
            self._groups.prepare()

    def refuse(self, worker: Worker, text: str) -> None:
        """End a start: the worker is not what it must be."""
        log.error("sandbox_refused pool=%s worker=%s cause=%s", self._spec.name, worker.name, printable(text))
        self._loop.unwatch(worker.channel.greeting.fileno())
        self._over(worker)
        if worker.pidfd >= 0:
            pidfd.kill(worker.pidfd)
        worker.tree.end_strangers()
        self._owner.refused(worker)

    # What a tree tells.

    def tree_confined(self, tree: Tree) -> None:
        """The walls stand and the script is not running yet: the import may use what the workers may."""
        if "cgroup" in tree.layers:
            try:
                tree.group = self._groups.make(f"z{tree.pid}", self._spec.workers + self._spec.parked)
                tree.group.add(tree.pid)
            except OSError as error:
                self.tree_failed(tree, ProtectionUnavailable(f"layer cgroup: the zygote cannot join its group: {error}",
                                                             layer="cgroup"))

    def tree_ready(self, tree: Tree) -> None:
        """The script is loaded: fork what is missing."""
        self.fill()

    def tree_failed(self, tree: Tree, error: PyprocError) -> None:
        """A zygote is gone or was refused; its workers end with it."""
        self._owner.tree_lost(tree, error)

    def tree_ended(self, tree: Tree) -> None:
        """Its keeper has ended, and so has everything in it."""
        if tree in self._population.ending:
            self._population.ending.remove(tree)
        if tree.group is not None:
            self._groups.remove(tree.group)
            tree.group = None

    def spoke(self, source: str, text: bytes) -> None:
        """What a zygote wrote."""
        self._owner.spoke(source, text)

    def not_forked(self, tree: Tree, errno: int) -> None:
        """The kernel refused the zygote's fork."""
        if tree.starting is None:
            self.tree_failed(tree, PyprocError("the zygote speaks out of turn"))
        else:
            self.refuse(tree.starting, f"fork was refused with errno {errno}")

    def forking(self, worker: Worker) -> None:
        """The zygote forks: make the worker's group meanwhile."""
        with contextlib.suppress(OSError):  # tried again, and reported, when it greets
            self._make_group(worker)

    def child_met(self, worker: Worker, pid: int) -> None:
        """The child of an open fork went on with its first step: put it into its group meanwhile."""
        with contextlib.suppress(OSError):  # as above
            self._join(worker, pid)

    def asked_too_often(self, worker: Worker) -> None:
        """It keeps asking for what it is refused."""
        self._owner.condemn(worker, "process_limit")

    def _make_group(self, worker: Worker) -> None:
        if worker.group is None and "cgroup" in worker.tree.layers:
            worker.group = self._groups.for_worker()

    def _join(self, worker: Worker, pid: int) -> None:
        self._make_group(worker)
        if worker.group is not None and worker.joined != pid:
            worker.group.add(pid)
            worker.joined = pid

    def _bound(self, worker: Worker) -> str:
        limits = self._spec.limits
        try:
            if {"rlimits", "user_namespace"} <= worker.tree.layers:  # else the limit would count the uid's other processes
                tasks = limits.threads + limits.processes
                resource.prlimit(worker.pid, resource.RLIMIT_NPROC, (tasks, tasks))
            self._join(worker, worker.pid)
        except OSError as error:
            return f"its limits cannot be set: {error}"
        return ""

    def _attest(self, worker: Worker) -> str:
        zygote = worker.tree.zygote
        return "; ".join(worker.tree.attestation.worker(worker, zygote)) if zygote else "its zygote was never attested"

    def _over(self, worker: Worker) -> None:
        if worker.late is not None:
            worker.late.cancel()
            worker.late = None
        worker.tree.started()

    def _overdue(self, tree: Tree) -> None:
        if not tree.ready and not tree.closed:
            self.tree_failed(tree, Unavailable(f"the script was not loaded within {self._patience.boot:.0f} s"))
