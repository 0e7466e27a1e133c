"""The supervisor: one thread, off the data path, that boots, forks, attests, ends and replaces.

Rules:
* Callers block on their own channel and never on this thread, but for a death's evidence (`autopsy`).
* Deadlines are lazy: a caller stores its deadline in its worker and wakes the thread only if that lies before the time at
  which the thread would look anyway (`wake_at`, kept until it has passed: one wake-up a time-out, not one a call). The
  thread sets `wake_at` to infinity, scans, then sets the earliest: a deadline that the scan missed was stored after the
  infinity was set, so its caller sees it and pokes.
* Evidence comes from pidfds. Every end goes through `_bury`, once.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import platform
import random
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from pyproc.errors import ProtectionUnavailable, PyprocError, Unavailable
from pyproc.host import cgroup, credentials, pidfd, spawn
from pyproc.sandbox import interpreter as interpreters
from pyproc.sandbox import plan as plans
from pyproc.sandbox import probe
from pyproc.supervisor.death import Death, explain
from pyproc.supervisor.restart import Restart
from pyproc.supervisor.spec import WorkerSpec
from pyproc.supervisor.state import Worker
from pyproc.supervisor.tree import Tree, call_names
from pyproc_wire.connection import CancelRequested, Failed, Ready, Succeeded
from pyproc_wire.errors import WireError
from pyproc_wire.limits import RECV_BYTES

log = logging.getLogger("pyproc")
START_SECONDS, BOOT_SECONDS = 10.0, 300.0  # a fork; a boot with the script's import
GRACE_SECONDS = 0.5  # code that still runs this long after its caller gave up is killed (contract, section 10)
EOF_SECONDS = 0.5  # a worker that closed its channel and has not died by then broke the protocol
TAKE_DOWN_SECONDS = 5.0
OUTPUT_KILL_FACTOR = 16


class Pool(Protocol):
    """What the supervisor tells the pool, from its own thread."""

    def worker_ready(self, worker: Worker) -> None: ...
    def worker_gone(self, worker: Worker) -> None: ...
    def failed(self, error: PyprocError | None) -> None: ...


class Supervisor:
    """Keeps `spec.workers` workers alive until `close`."""

    def __init__(self, spec: WorkerSpec, pool: Pool) -> None:
        self.spec = spec
        self.wake_at = math.inf
        self.functions: dict[str, Any] = {}
        self.broken: PyprocError | None = None
        self.deaths: dict[str, int] = {}
        self.output_dropped = 0
        self._pool = pool
        self._restart = Restart(spec.intensity, spec.period)
        self._interpreter = interpreters.describe(spec.python)
        granted, self._abi = probe.granted()
        self._cgroups, refusal = cgroup.parents(also=("cpu",) if spec.limits.cpus else ())
        self._granted = {**granted, "cgroup": refusal}
        self._names = call_names(platform.machine())
        self._actions: dict[int, Callable[[], None]] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._trees: list[Tree] = []
        self._ending: list[Tree] = []
        self._workers: set[Worker] = set()
        self._made = 0
        self._base = cgroup.owner_name()
        cgroup.sweep(self._cgroups.values())  # what a killed supervisor left
        self._first = threading.Event()
        self._closing = False
        self._ended = threading.Event()
        self._layers: dict[str, plans.LayerState] = {}
        if spec.limits.cpus and ("cpu" not in self._cgroups or spec.sandbox.layers.get("cgroup") == "off"):
            raise ProtectionUnavailable(f"limits.cpus is {spec.limits.cpus}, and no cpu group is granted here", layer="cgroup",
                                        remedy="leave limits.cpus out, or delegate the cpu controller")
        self._plan(0)  # what is wrong with the options is said before anything is opened
        self._epoll = select.epoll()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._eventfd, self._woken)
        self._thread = threading.Thread(target=self._run, name="pyproc-supervision", daemon=True)

    # -- for the pool ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot; returns when the first worker serves. Raises what prevented it."""
        self._thread.start()
        self._order(self._boot)
        self._first.wait()
        if self.broken is not None:
            error = self.broken
            self.close(0.0)
            raise error

    def poke(self) -> None:
        """Have the thread look at the deadlines now."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._eventfd, 1)

    def condemn(self, worker: Worker, reason: str) -> None:
        """SIGKILL, for `reason`; the first reason stands."""
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
        self._order(lambda: self._abandon(worker))

    def retire(self, worker: Worker) -> None:
        """A planned end (max_requests, isolation="call"): destroyed and replaced, no death."""
        worker.retiring = True
        self.condemn(worker, "retired")

    def drain(self, worker: Worker) -> None:
        """Read what the call that has just ended wrote, so that it is put to that call."""
        def read() -> None:
            for fd in worker.outputs:
                self._drain(worker, fd)

        self._order(read)

    def status(self) -> dict[str, Any]:
        """Workers, states, layers in force, deaths by reason."""
        workers = [{"name": w.name, "pid": w.pid, "calls": w.calls,
                    "state": "ending" if w.doomed else "busy" if w.call_id else "idle"}
                   for w in sorted(self._workers, key=lambda w: w.name) if w.pid]
        layers = {name: {"state": layer.state, "wanted": layer.wanted, "detail": layer.detail}
                  for name, layer in self._layers.items()}
        return {"workers": workers, "layers": layers, "deaths": dict(self.deaths),
                "zygotes": [tree.pid for tree in self._trees if tree.pid], "output_dropped": self.output_dropped}

    def close(self, grace: float) -> None:
        """End everything below; returns when it is gone. `grace`: seconds that busy workers are given."""
        limit = time.monotonic() + grace
        while grace and any(w.call_id for w in list(self._workers)) and time.monotonic() < limit:
            self._ended.wait(0.01)
        if self._closing:
            self._ended.wait(TAKE_DOWN_SECONDS)
            return
        self._closing = True
        if not self._thread.is_alive():
            self._take_down()
            return
        self.poke()
        self._thread.join()

    def forget(self) -> None:
        """In a forked child: close every descriptor that belongs to the parent's pool; end nothing."""
        if self._ended.is_set():
            return  # closed long ago, and the numbers belong to others now
        for worker in list(self._workers):
            worker.sock.close()
            for fd in (*worker.outputs, worker.pidfd):
                _close(fd)
        for tree in (*self._trees, *self._ending):
            tree.control.close()
            tree.lifeline.close()
            for fd in (tree.output, tree.listener, tree.pidfd, tree.keeper_fd):
                _close(fd)
        _close(self._eventfd)
        self._epoll.close()

    # -- for the trees -----------------------------------------------------------------------------------------------

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Call `action` whenever `fd` can be read."""
        self._actions[fd] = action
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching; a descriptor that is not watched is no error."""
        if self._actions.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)

    def tree_ready(self, tree: Tree) -> None:
        """The script is loaded: fork what is missing."""
        self._fill()

    def tree_failed(self, tree: Tree, error: PyprocError) -> None:
        """A zygote is gone or was refused; its workers end with it."""
        was_ready = tree.ready
        self._remove_tree(tree)
        if self._closing:
            return
        if not was_ready and not self._first.is_set():
            self._break(error)
            return
        log.error("zygote_lost pool=%s cause=%s", self.spec.name, _printable(str(error)))
        self._account("zygote", "exit:zygote")

    def worker_refused(self, worker: Worker, text: str) -> None:
        """A worker did not come up."""
        log.error("sandbox_refused pool=%s worker=%s cause=%s", self.spec.name, worker.name, _printable(text))
        self._discard(worker)
        if not self._closing:
            self._account(worker.name, "policy")

    def spoke(self, source: str, text: bytes) -> None:
        """What a zygote wrote to its standard streams."""
        log.info("output pool=%s source=%s text=%s", self.spec.name, source, _printable(text.decode(errors="replace")))

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._once()
        except Exception as error:
            log.exception("supervision_failed pool=%s", self.spec.name)
            self._break(PyprocError(f"supervision failed: {error}"))
        finally:
            self._take_down()

    def _once(self) -> None:
        asked, self.wake_at = self.wake_at, math.inf
        now = time.monotonic()
        earliest = min((w.deadline for w in self._workers), default=math.inf)
        if asked > now:
            earliest = min(earliest, asked)  # kept although its call may be over: else each call would wake this thread
        if self._timers:
            earliest = min(earliest, min(when for when, _ in self._timers))
        self.wake_at = earliest
        timeout = -1.0 if earliest == math.inf else max(0.0, earliest - now) + 0.0005
        for fd, _ in self._epoll.poll(timeout):
            action = self._actions.get(fd)
            if action is not None:
                action()
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.deadline <= now:
                self.condemn(worker, "cancelled" if worker.abandoned else "deadline")
        for timer in [t for t in self._timers if t[0] <= now]:
            self._timers.remove(timer)
            timer[1]()

    def _order(self, action: Callable[[], None]) -> None:
        self._orders.append(action)
        self.poke()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        while self._orders:
            self._orders.popleft()()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, action))

    # -- starting ----------------------------------------------------------------------------------------------------

    def _plan(self, ordinal: int) -> plans.Plan:
        spec = self.spec
        folders = [f"{parent}/{self._base}" for parent in self._cgroups.values()]
        made = plans.build(
            sandbox=spec.sandbox, limits=spec.limits, interpreter=self._interpreter, granted=self._granted,
            landlock_abi=self._abi, environment=spec.environment, script=spec.script, source=spec.source,
            preload=spec.preload, workers=1 if spec.solo else spec.workers, ordinal=os.getpid() + ordinal,
            solo=spec.solo, uid=os.geteuid(), gid=os.getegid(), cgroups=folders)
        self._layers = made.layers
        return made

    def _boot(self) -> None:
        wanted = self.spec.workers if self.spec.solo else 1
        while len(self._trees) < wanted and not self._closing:
            try:
                tree = Tree(self, self._plan(self._made), self._interpreter, self._names)
            except PyprocError as error:
                self._break(error)
                return
            self._trees.append(tree)
            self._later(BOOT_SECONDS, functools.partial(self._overdue, tree))

    def _overdue(self, tree: Tree) -> None:
        if not tree.ready and not tree.closed:
            self.tree_failed(tree, Unavailable(f"the script was not loaded within {BOOT_SECONDS:.0f} s"))

    def _fill(self) -> None:
        """Ask for one worker of each tree that has room; the next one is asked for when it has come."""
        if self._closing or self.broken is not None:
            return
        room = 1 if self.spec.solo else self.spec.workers
        for tree in self._trees:
            alive = sum(1 for w in tree.workers if w.doomed is None)
            if tree.ready and not tree.closed and tree.starting is None and alive < room:
                self._fork(tree)

    def _fork(self, tree: Tree) -> None:
        self._made += 1
        host, inner = socket.socketpair()
        out, inner_out = os.pipe()
        err, inner_err = os.pipe()
        names = tuple(os.readlink(f"/proc/self/fd/{fd}") for fd in (inner.fileno(), inner_out, inner_err))
        limits = self.spec.limits
        worker = Worker(f"w{self._made}", tree, host, (out, err), names, limits.response, limits.request)  # type: ignore[arg-type]
        for fd in (out, err):
            os.set_blocking(fd, False)
        self._workers.add(worker)
        tree.workers.add(worker)
        try:
            tree.fork(worker, [inner.fileno(), inner_out, inner_err])
        except OSError:
            tree.starting = None
        finally:
            inner.close()
            os.close(inner_out)
            os.close(inner_err)
        self._later(START_SECONDS, lambda: self._late_start(worker))

    def _late_start(self, worker: Worker) -> None:
        if worker.tree.starting is worker:
            self.unwatch(worker.sock.fileno())
            worker.tree.started()
            self.worker_refused(worker, f"it was not ready within {START_SECONDS:.0f} s")

    def greeted(self, worker: Worker, data: bytes) -> None:
        """The bytes of a worker's first message: its `ready`, complete or in part."""
        try:
            events = worker.connection.receive(data)
        except WireError as error:
            self._refuse_start(worker, f"its first message is not valid: {error}")
            return
        if not events:
            return
        wrong = [] if len(events) == 1 and isinstance(events[0], Ready) else ["it says more than ready"]
        wrong += worker.tree.welcome(worker)
        if wrong:
            self._refuse_start(worker, "; ".join(wrong))
            return
        try:
            self._limit(worker)
        except OSError as error:
            self._refuse_start(worker, f"its limits cannot be set: {error}")
            return
        self.unwatch(worker.sock.fileno())
        credentials.ask(worker.sock, on=False)
        worker.sock.setblocking(True)
        worker.tree.started()
        self.watch(worker.pidfd, lambda: self._bury(worker))
        for fd in worker.outputs:
            self.watch(fd, functools.partial(self._drain, worker, fd))
        ready = events[0]
        if isinstance(ready, Ready):
            self.functions = ready.functions
        log.debug("worker_started pool=%s worker=%s pid=%d", self.spec.name, worker.name, worker.pid)
        self._pool.worker_ready(worker)
        self._first.set()
        self._fill()

    def limit_zygote(self, tree: Tree) -> None:
        """The import may use what one worker may; before the script runs."""
        if "cgroup" in tree.layers:
            tree.group = self._group(f"z{tree.pid}", self.spec.workers)
            tree.group.add(tree.pid)

    def _group(self, name: str, workers: int) -> cgroup.Group:
        limits = self.spec.limits
        folders = {controller: f"{parent}/{self._base}/{name}" for controller, parent in self._cgroups.items()}
        return cgroup.Group(folders, memory=limits.memory, pids=workers * (limits.threads + limits.processes) + 16,
                            cpus=limits.cpus)

    def _limit(self, worker: Worker) -> None:
        limits = self.spec.limits
        if "rlimits" in worker.tree.layers:
            tasks = limits.threads + limits.processes
            resource.prlimit(worker.pid, resource.RLIMIT_NPROC, (tasks, tasks))
        if "cgroup" in worker.tree.layers:
            worker.group = self._group(worker.name, 1)
            worker.group.add(worker.pid)

    def _refuse_start(self, worker: Worker, text: str) -> None:
        self.unwatch(worker.sock.fileno())
        worker.tree.started()
        if worker.pidfd >= 0:
            pidfd.kill(worker.pidfd)
        self.worker_refused(worker, text)

    # -- ending ------------------------------------------------------------------------------------------------------

    def _bury(self, worker: Worker) -> None:
        """The pidfd says that the worker ended: evidence, then everybody who waits, then a replacement."""
        status = pidfd.exit_status(worker.pidfd, worker.pid)
        for _ in range(200):
            if status is not None:
                break
            select.select([], [], [], 0.001)  # the zygote's side of the reaping is still under way
            status = pidfd.exit_status(worker.pidfd, worker.pid)
        oom = False
        if worker.group is not None:
            with contextlib.suppress(OSError):
                oom = worker.group.oom_kills() > 0
        worker.death = explain(status, worker.doomed, oom=oom)
        for fd in worker.outputs:
            self._drain(worker, fd)
        with contextlib.suppress(OSError):
            worker.sock.shutdown(socket.SHUT_RDWR)
        reason = worker.death.reason
        self._discard(worker)
        if not worker.call_id or worker.abandoned:
            worker.sock.close()  # nobody waits on it; else its caller closes it when it has the evidence
        worker.finished.set()
        self._pool.worker_gone(worker)
        if reason not in ("retired", "shutdown"):
            self.deaths[reason] = self.deaths.get(reason, 0) + 1
            log.warning("worker_died pool=%s worker=%s reason=%s evidence=%s", self.spec.name, worker.name, reason,
                        worker.death.evidence)
        if not self._closing:
            self._account(worker.name, reason)

    def _account(self, name: str, reason: str) -> None:
        delay = self._restart.died(reason, time.monotonic(), random.random())  # noqa: S311 - spreads restarts, no secret
        if delay is None:
            self.broken = Unavailable(f"workers died more than {self.spec.intensity} times within "
                                      f"{self.spec.period:.0f} s, the last one of {reason}", reason="restart_intensity",
                                      retry_after=self.spec.period)
            self._first.set()
            self._pool.failed(self.broken)
            self._later(self.spec.period, self._mend)
        elif delay == 0.0:
            self._refill()
        else:
            self._later(delay, self._refill)

    def _refill(self) -> None:
        if not self._closing and self.broken is None:
            self._boot()
            self._fill()

    def _mend(self) -> None:
        self.broken = None
        self._pool.failed(None)
        self._refill()

    def _break(self, error: PyprocError) -> None:
        self.broken = error
        self._first.set()
        self._pool.failed(error)

    def _discard(self, worker: Worker) -> None:
        self._workers.discard(worker)
        worker.tree.workers.discard(worker)
        worker.tree.door.refused.pop(worker.pid, None)
        for fd in (*worker.outputs, worker.pidfd):
            self.unwatch(fd)
            _close(fd)
        worker.outputs, worker.pidfd = (), -1  # type: ignore[assignment]
        if worker.death is None:
            self.unwatch(worker.sock.fileno())
            worker.sock.close()
        if worker.group is not None:
            worker.group.remove()
            worker.group = None
        if self.spec.solo and worker.tree in self._trees:
            self._remove_tree(worker.tree)

    def _remove_tree(self, tree: Tree) -> None:
        if tree in self._trees:
            self._trees.remove(tree)
            self._ending.append(tree)
        tree.close()
        self._ending = [t for t in self._ending if t.keeper_fd >= 0]
        for worker in list(tree.workers):
            if worker.pidfd < 0:
                self._discard(worker)

    def _abandon(self, worker: Worker) -> None:
        if worker.death is not None or worker.doomed is not None or not worker.call_id:
            return
        worker.abandoned = worker.call_id
        worker.deadline = time.monotonic() + GRACE_SECONDS
        try:
            frame = worker.connection.cancel(worker.call_id)
            worker.sock.setblocking(False)
            worker.sock.send(frame)
            self.watch(worker.sock.fileno(), lambda: self._settle(worker))
        except (OSError, WireError):
            self.condemn(worker, "cancelled")

    def _settle(self, worker: Worker) -> None:
        """Throw away what an abandoned call still answers; its end gives the worker back."""
        try:
            events = worker.connection.receive(worker.sock.recv(RECV_BYTES))
        except BlockingIOError:
            return
        except (OSError, WireError):
            self.unwatch(worker.sock.fileno())
            self.condemn(worker, "protocol")
            return
        for event in events:
            if isinstance(event, (Succeeded, Failed)) and event.id == worker.abandoned:
                self.unwatch(worker.sock.fileno())
                worker.sock.setblocking(True)
                worker.abandoned, worker.call_id, worker.deadline = 0, 0, math.inf
                self._pool.worker_ready(worker)
                return
            if isinstance(event, CancelRequested):
                break

    def _drain(self, worker: Worker, fd: int) -> None:
        if fd not in worker.outputs:
            return
        try:
            data = os.read(fd, RECV_BYTES)
        except (BlockingIOError, OSError):
            return
        if not data:
            self.unwatch(fd)
            return
        if worker.calls != worker.spoken_call:
            worker.spoken, worker.spoken_call = 0, worker.calls
        room = self.spec.limits.output - worker.spoken
        worker.spoken += len(data)
        if room > 0:
            stream = "stdout" if fd == worker.outputs[0] else "stderr"
            log.info("output pool=%s worker=%s call=%d stream=%s text=%s", self.spec.name, worker.name, worker.calls, stream,
                     _printable(data[:room].decode(errors="replace")))
        self.output_dropped += max(0, len(data) - max(0, room))
        if worker.spoken > OUTPUT_KILL_FACTOR * self.spec.limits.output:
            self.condemn(worker, "output_limit")

    def _take_down(self) -> None:
        """End all trees, wait for their keepers, give back every descriptor and group."""
        self._closing = True
        for worker in list(self._workers):
            if worker.doomed is None:
                self.condemn(worker, "shutdown")
        keepers = [tree for tree in (*self._trees, *self._ending) if tree.keeper_fd >= 0]
        for tree in list(self._trees):
            tree.close()
        for tree in keepers:
            if tree.keeper_fd >= 0:
                select.select([tree.keeper_fd], [], [], TAKE_DOWN_SECONDS)
                spawn.reap(tree.keeper, tree.keeper_fd)
                self.unwatch(tree.keeper_fd)
                _close(tree.keeper_fd)
                tree.keeper_fd = -1
            if tree.group is not None:
                tree.group.remove()
        for worker in list(self._workers):
            if worker.pidfd >= 0:
                self._bury(worker)
            else:
                self._discard(worker)
            worker.finished.set()
        for parent in self._cgroups.values():
            cgroup.remove(f"{parent}/{self._base}")
        self._first.set()
        self._trees.clear()
        _close(self._eventfd)
        self._epoll.close()
        self._ended.set()
        self._pool.failed(self.broken or Unavailable("the pool is closed"))


def _close(fd: int) -> None:
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)


def _printable(text: str) -> str:
    return text.rstrip("\n").encode("unicode_escape", "backslashreplace").decode("ascii")

