"""Ends: each death is typed by kernel evidence, told to whom it concerns, accounted, and followed by a replacement.

Rules:
* Evidence comes from pidfds. Every end of a worker that served goes through `bury`, once.
* The pidfd may tell of an end a moment before the kernel tells the status; that is looked at again by a timer.
* What nobody waits for (the group) is removed later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from pyproc.errors import PyprocError, Unavailable
from pyproc.host import pidfd
from pyproc.link.channel import Channel
from pyproc.supervisor.death import explain
from pyproc.supervisor.output import Output, printable
from pyproc.supervisor.restart import Restart
from pyproc.supervisor.state import Shared, Worker
from pyproc.supervisor.tree import Tree

log = logging.getLogger("pyproc")
STATUS_SECONDS, STATUS_LOOKS = 0.001, 200  # between two looks at a status that is not told yet; how many
RELEASE_SECONDS, RELEASE_SECONDS_MAX = 0.01, 1.0  # between two looks at a channel whose caller has not let go of it yet
PLANNED = ("retired", "shutdown")


class Pool(Protocol):
    """What an end means to the pool; told on the supervision thread."""

    def worker_gone(self, worker: Worker) -> bool: ...
    def failed(self, error: PyprocError | None) -> None: ...


class Ends:
    """`refill` boots and forks what is missing."""

    def __init__(self, shared: Shared, pool: Pool, output: Output, refill: Callable[[], None]) -> None:
        self._spec, self._population, self._loop, self._groups = shared
        self.deaths: dict[str, int] = {}
        self.restart = Restart(self._spec.intensity, self._spec.period)
        self._pool = pool
        self._output = output
        self._refill = refill

    def ended(self, worker: Worker) -> None:
        """The pidfd says that the worker ended."""
        self._loop.unwatch(worker.pidfd)
        self._look(worker, STATUS_LOOKS)

    def bury(self, worker: Worker, status: int | None) -> None:
        """The worker has ended with wait status `status`: evidence, then everybody who waits, then a replacement."""
        oom = False
        if worker.group is not None:
            with contextlib.suppress(OSError):
                oom = worker.group.oom_kills() > 0
        with worker.holding:
            death = worker.death = explain(status, worker.doomed, oom=oom)
            worker.doomed = worker.doomed or death.reason  # whoever gives it back, or takes it, sees that it is over
        if self._spec.sandbox.profile != "strict" and worker.pidfd >= 0:
            pidfd.kill(worker.pidfd, group=True)  # what it has started and left
        self._output.drain(worker)
        worker.tree.buried(worker)
        self.discard(worker)
        if death.reason not in PLANNED:
            self._count(death.reason)  # before its caller hears of it
        idle = self._pool.worker_gone(worker)
        with worker.holding:
            worker.finished.set()
            if idle or worker.returned or worker.abandoned or worker.doomed == "retired":  # its call was over
                self._loop.unwatch(worker.channel.answers)
                worker.channel.close()  # nobody waits on it; else its caller closes it when it has the evidence
        self._release(weakref.ref(worker.channel), worker.holding, RELEASE_SECONDS)
        if death.reason not in PLANNED:
            log.warning("worker_died pool=%s worker=%s reason=%s evidence=%s", self._spec.name, worker.name, death.reason,
                        death.evidence)
        if not self._taken_along(worker):
            self.account(death.reason)

    def refused(self, worker: Worker | None) -> None:
        """A start came to nothing: the worker is not what it must be, or (None) could not be asked for."""
        if worker is not None:
            self.discard(worker)
            self._count("policy")
        if worker is None or not self._taken_along(worker):
            self.account("policy")

    def discard(self, worker: Worker) -> None:
        """Let go of everything that belongs to a worker, but for the channel of one that died in a call."""
        self._population.workers.discard(worker)
        worker.tree.workers.discard(worker)
        worker.tree.doorkeeper.forget(worker.pid)
        with worker.holding:  # a caller's thread may be killing by the pidfd
            closing, worker.outputs, worker.pidfd = (*worker.outputs, worker.pidfd), (), -1
        for fd in closing:
            if fd >= 0:
                self._loop.unwatch(fd)
                with contextlib.suppress(OSError):
                    os.close(fd)
        if worker.death is None:
            self._loop.unwatch(worker.channel.greeting.fileno())
            worker.channel.close()
        if worker.late is not None:
            worker.late.cancel()
            worker.late = None
        if worker.group is not None:
            self._groups.remove(worker.group)
            worker.group = None
        if self._spec.solo and worker.tree in self._population.trees:
            self.remove_tree(worker.tree)

    def remove_tree(self, tree: Tree) -> None:
        """End a tree; its keeper's pidfd tells when it is gone."""
        if tree in self._population.trees:
            self._population.trees.remove(tree)
            self._population.ending.append(tree)
        tree.close()
        for worker in list(tree.workers):
            if worker.pidfd < 0:
                self.discard(worker)

    def lost(self, tree: Tree, error: PyprocError) -> None:
        """A zygote is gone or was refused: the first one breaks the pool, a later one is replaced."""
        was_ready = tree.ready
        self.remove_tree(tree)
        if self._population.closing:
            return
        if not was_ready and not self._population.first.is_set():
            self.broke(error)
            return
        log.error("zygote_lost pool=%s cause=%s", self._spec.name, printable(str(error)))
        self.account("exit:zygote")

    def account(self, reason: str) -> None:
        """Count a death and start again: at once, later, or not before the period is over. Those of a broken pool do not count."""
        if self._population.closing or self._population.broken is not None:
            return
        delay = self.restart.died(reason, time.monotonic(), random.random())  # noqa: S311 - spreads restarts, no secret
        if delay is None:
            intensity, period = self.restart.intensity, self.restart.period
            self.broke(Unavailable(f"workers died more than {intensity} times within {period:.0f} s, the last one of {reason}",
                                   reason="restart_intensity", retry_after=period))
            self._loop.later(period, self._mend)
        elif delay == 0.0:
            self._refill()
        else:
            self._loop.later(delay, self._refill)

    def proven(self) -> None:
        """The worker that was tried after a broken period has come back from a call: start the others."""
        if self.restart.trying:
            self.restart.proven()
            self._population.wanted = self._population.full
            self._refill()

    def broke(self, error: PyprocError) -> None:
        """The pool cannot serve, because of `error`."""
        self._population.broken = error
        self._population.first.set()
        self._pool.failed(error)

    def _taken_along(self, worker: Worker) -> bool:
        """The end of a zygote is accounted once, whatever it takes with it."""
        return not self._spec.solo and worker.tree.gone

    def _count(self, reason: str) -> None:
        self.deaths[reason] = self.deaths.get(reason, 0) + 1

    def _release(self, channel: weakref.ref[Channel], holding: threading.Lock, seconds: float) -> None:
        """Whoever waits on a dead worker's channel goes on, also where something that the worker left holds its end."""
        held = channel()
        if held is not None:
            with holding:
                used = held.release()
            if used:
                self._loop.later(seconds, lambda: self._release(channel, holding, min(2 * seconds, RELEASE_SECONDS_MAX)))

    def _look(self, worker: Worker, left: int) -> None:
        if worker.death is not None:
            return  # buried meanwhile, by the take-down
        status = pidfd.exit_status(worker.pidfd, worker.pid)
        if status is None and left > 0:
            self._loop.later(STATUS_SECONDS, lambda: self._look(worker, left - 1))
        else:
            self.bury(worker, status)

    def _mend(self) -> None:
        living = sum(worker.doomed is None for worker in self._population.workers)
        self._population.wanted = self.restart.try_one(self._population.full, living)
        self._population.broken = None
        self._pool.failed(None)
        self._refill()
