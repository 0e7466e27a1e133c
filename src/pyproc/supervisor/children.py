"""The supervisor: one thread, off the data path, that boots, forks, attests, ends and replaces. This module is its face.

    pool ──▶ Supervisor ──▶ starts ──▶ tree ──▶ keeper, dialogue, doorkeeper, attestation    one zygote and what is in the making
                       ──▶ ends ──▶ restart, death     cancel     output     groups        all on one `loop`

Rules:
* Callers block on their own channel and never on this thread, but for a death's evidence (`autopsy`).
* Deadlines are lazy: a caller stores its deadline in its worker and wakes the thread only if that lies before the time at
  which the thread would look anyway (`wake_at`, kept until it has passed: one wake-up a time-out, not one a call). The
  thread looks when that time has come or when it was poked: it sets `wake_at` to infinity, scans, then sets the earliest. A
  deadline that the scan missed was stored after the infinity was set, so its caller sees it and pokes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from pyproc.errors import SHUTDOWN, PyprocError, Unavailable
from pyproc.host import cgroup, pidfd, procfs
from pyproc.sandbox import plan as plans
from pyproc.sandbox.verdict import Policy
from pyproc.supervisor.cancel import Cancel
from pyproc.supervisor.death import Death
from pyproc.supervisor.ends import Ends
from pyproc.supervisor.groups import Groups
from pyproc.supervisor.loop import Loop
from pyproc.supervisor.nursery import Nursery
from pyproc.supervisor.output import Output
from pyproc.supervisor.park import PERIOD_SECONDS, most
from pyproc.supervisor.spec import WorkerSpec
from pyproc.supervisor.starts import Patience, Starts
from pyproc.supervisor.state import Population, Shared, Worker
from pyproc.supervisor.tree import Tree

log = logging.getLogger("pyproc")
START_SECONDS, BOOT_SECONDS = 10.0, 300.0  # from the request for a fork to ready; a boot with the script's import
EOF_SECONDS = 0.5  # a worker that closed its channel and has not died by then broke the protocol
TAKE_DOWN_SECONDS = 5.0


class Pool(Protocol):
    """What the supervisor tells the pool, from its own thread."""

    def worker_ready(self, worker: Worker) -> bool: ...
    def unused(self) -> int: ...
    def unpark(self) -> Worker | None: ...
    def give_back(self, worker: Worker) -> None: ...
    def worker_gone(self, worker: Worker) -> bool: ...
    def overdue(self, now: float) -> float: ...
    def failed(self, error: PyprocError | None) -> None: ...
    def ended(self) -> None: ...


class Supervisor:
    """Keeps `spec.workers` workers alive until `close`, and some parked beyond them. `tried`: the one
     that was started after a broken period."""

    def __init__(self, spec: WorkerSpec, pool: Pool) -> None:
        self.spec = spec
        self.wake_at = math.inf
        self.functions: dict[str, Any] = {}
        self.tried: Worker | None = None
        self._pool = pool
        parents, refusal = cgroup.parents(also=("cpu",) if spec.limits.cpus else ())
        self._population = Population(spec.workers, _parkable(spec))
        self._workers = self._population.workers
        self._ended = threading.Event()
        self._loop = Loop()
        try:
            self._groups = Groups(parents, spec.limits, self._loop, off=spec.sandbox.layers.get("cgroup") == "off")
            self._nursery = Nursery(spec, self._loop, self._groups.folders(), refusal)
        except BaseException:
            self._loop.close()
            raise
        self._output = Output(spec.name, spec.limits.output, self._loop, self.condemn)
        shared = Shared(spec, self._population, self._loop, self._groups)
        self._starts = Starts(self, shared, self._nursery.plant, Patience(BOOT_SECONDS, START_SECONDS))
        self._ends = Ends(shared, pool, self._output, self._refill)
        self._cancel = Cancel(self._loop, self.condemn, pool.give_back)
        self._thread = threading.Thread(target=self._run, name="pyproc-supervision", daemon=True)

    @property
    def layers(self) -> Mapping[str, plans.LayerState]:
        """The protections of the pool's processes, by name."""
        return self._nursery.layers

    @property
    def policy(self) -> Policy:
        """What the pool's processes are held to, to explain what they were refused."""
        return self._nursery.policy

    # For the pool, from any thread.

    def start(self) -> None:
        """Boot; returns when the first worker serves. Raises what prevented it."""
        self._thread.start()
        self._loop.order(self._starts.boot)
        if self.spec.parked:
            self._loop.order(self._look_later)
        self._population.first.wait()
        error = self._population.broken
        if error is not None:
            self.close(0.0)
            raise error

    def poke(self) -> None:
        """Have the thread look at the deadlines now."""
        self._loop.poke()

    def condemn(self, worker: Worker, reason: str) -> None:
        """SIGKILL, for `reason`; the first reason stands."""
        with worker.holding:
            if worker.doomed is None and worker.death is None:
                worker.doomed = reason
                if worker.pidfd >= 0:
                    pidfd.kill(worker.pidfd, group=self.spec.sandbox.profile != "strict")

    def autopsy(self, worker: Worker) -> Death:
        """The death of a worker whose channel ended; one that lives on behind a closed channel is ended."""
        if not worker.finished.wait(EOF_SECONDS):
            self.condemn(worker, "protocol")
            worker.finished.wait(TAKE_DOWN_SECONDS)
        return worker.death or Death(worker.doomed or "protocol", "the kernel told nothing in time")

    def abandon(self, worker: Worker) -> None:
        """The caller gave up: cancel, and end the worker if it does not answer within the grace."""
        self._loop.order(lambda: self._cancel.abandon(worker))

    def retire(self, worker: Worker) -> None:
        """A planned end (max_requests, isolation="call"): destroyed and replaced, no death."""
        self.condemn(worker, "retired")

    def proven(self) -> None:
        """The worker that was `tried` came back from a call."""
        self.tried = None
        self._loop.order(self._ends.proven)

    def drain(self, worker: Worker) -> None:
        """Read what the call that has just ended wrote, so that it is put to that call."""
        self._loop.order(lambda: self._output.drain(worker))

    def status(self) -> dict[str, Any]:
        """Workers, states, layers in force, deaths by reason."""
        workers = [{"name": w.name, "pid": w.pid, "calls": w.calls,
                    "state": "ending" if w.doomed else "busy" if w.call_id or w.viewed else "parked" if w.parked else "idle"}
                   for w in sorted(self._workers, key=lambda w: w.name) if w.pid]
        layers = {name: {"state": layer.state, "wanted": layer.wanted, "detail": layer.detail}
                  for name, layer in self.layers.items()}
        return {"workers": workers, "layers": layers, "deaths": dict(self._ends.deaths),
                "zygotes": [tree.pid for tree in self._population.trees if tree.pid], "output_dropped": self._output.dropped}

    def close(self, grace: float) -> None:
        """End everything below; returns when it is gone. `grace`: seconds that busy workers are given."""
        limit = time.monotonic() + grace
        while grace and any(w.call_id for w in list(self._workers)) and time.monotonic() < limit:
            self._ended.wait(0.01)
        if self._population.closing:
            self._ended.wait(TAKE_DOWN_SECONDS)
            return
        self._population.closing = True
        if not self._thread.is_alive():
            self._take_down()
            return
        self.poke()
        self._thread.join()

    def end(self) -> None:
        """Begin to end everything below, without waiting."""
        self._population.closing = True
        self.poke()

    def forget(self) -> None:
        """In a forked child: close every descriptor that belongs to the parent's pool; end nothing."""
        if self._ended.is_set():
            return  # closed long ago, and the numbers belong to others now
        for worker in list(self._workers):
            worker.channel.close()
            for fd in (*worker.outputs, worker.pidfd):
                _close(fd)
        for tree in (*self._population.trees, *self._population.ending):
            tree.forget()
        self._loop.close()

    # Told by starts and trees, on the thread.

    def started(self, worker: Worker, functions: dict[str, Any]) -> None:
        """A worker may be lent."""
        if self.spec.ahead:
            with contextlib.suppress(OSError):  # it ended; else it would preempt whoever sends it calls, at each of them
                os.sched_setscheduler(worker.pid, os.SCHED_BATCH, os.sched_param(0))
        self._loop.watch(worker.pidfd, lambda: self._ends.ended(worker))
        for fd in worker.outputs:
            self._loop.watch(fd, lambda fd=fd: self._output.drain_one(worker, fd))  # type: ignore[misc]
        if functions != self.functions:
            self.functions = functions
        log.debug("worker_started pool=%s worker=%s pid=%d", self.spec.name, worker.name, worker.pid)
        if self._ends.restart.trying:
            self.tried = worker
        if self._pool.worker_ready(worker):
            self._population.park.missed()
            self._adapt()
        self._population.first.set()

    def refused(self, worker: Worker | None) -> None:
        """A worker did not come up as it must be, or could not be asked for."""
        self._ends.refused(worker)

    def tree_lost(self, tree: Tree, error: PyprocError) -> None:
        """A zygote is gone or was refused."""
        self._ends.lost(tree, error)

    def broke(self, error: PyprocError) -> None:
        """Nothing can be started."""
        self._ends.broke(error)

    def spoke(self, source: str, text: bytes) -> None:
        """What a zygote wrote to its standard streams."""
        self._output.spoke(source, text)

    def _adapt(self) -> None:
        if not self._ends.restart.trying and self._population.broken is None:
            self._population.wanted = self._population.full

    def _look_at_parked(self) -> None:
        """A period is over: one worker less is parked if more than one was not used."""
        if self._population.park.passed(self._pool.unused()):
            self._adapt()
            worker = self._pool.unpark()
            if worker is not None:
                self.retire(worker)
        self._look_later()

    def _look_later(self) -> None:
        self._loop.later(PERIOD_SECONDS, self._look_at_parked)

    def _refill(self) -> None:
        if not self._population.closing and self._population.broken is None:
            self._starts.boot()
            self._starts.fill()

    # The thread.

    def _run(self) -> None:
        try:
            while not self._population.closing:
                if self._loop.turn(self.wake_at) or time.monotonic() >= self.wake_at:
                    self._look_at_deadlines()
        except Exception as error:
            log.exception("supervision_failed pool=%s", self.spec.name)
            self._ends.broke(PyprocError(f"supervision failed: {error}"))
        finally:
            self._take_down()

    def _look_at_deadlines(self) -> None:
        asked, self.wake_at = self.wake_at, math.inf
        now = time.monotonic()
        earliest = asked if asked > now else math.inf  # kept although its call may be over: else each call would poke
        for worker in list(self._workers):
            if not worker.call_id:
                continue
            if worker.deadline <= now:
                self.condemn(worker, "cancelled" if worker.abandoned else "deadline")
            else:
                earliest = min(earliest, worker.deadline)
        self.wake_at = min(earliest, self._pool.overdue(now))

    def _take_down(self) -> None:
        """End all trees, wait for their keepers, give back every descriptor and group."""
        population = self._population
        population.closing = True
        for worker in list(self._workers):
            self.condemn(worker, "shutdown")
        trees = [*population.trees, *population.ending]
        for tree in trees:
            tree.close()
        for tree in trees:
            tree.await_end(TAKE_DOWN_SECONDS)
            self._starts.tree_ended(tree)
        for worker in list(self._workers):
            if worker.pidfd >= 0:
                self._ends.bury(worker, pidfd.exit_status(worker.pidfd, worker.pid))
            else:
                self._ends.discard(worker)
            worker.finished.set()
        self._groups.take_down()
        population.trees.clear()
        population.first.set()
        self._loop.close()
        self._ended.set()
        self._pool.failed(population.broken or Unavailable("the pool is closed", reason=SHUTDOWN))
        self._pool.ended()


def _parkable(spec: WorkerSpec) -> int:
    """The most workers to park, by what is free now."""
    if not spec.parked:
        return 0
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd"))
    return most(spec.workers, available=procfs.available_memory(), memory=spec.limits.memory, descriptors=descriptors)


def _close(fd: int) -> None:
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)
