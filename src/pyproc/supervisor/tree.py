"""One zygote and what hangs on it: its boot, its control channel, the fork requests. Driven by the loop; never waits.

The dialogue is drawn in `pyproc_worker.boot`, what may be said when stands in `dialogue`, who may do what in `door`. A
worker's identity comes from the kernel with its first message; nothing that arrives chooses a path, a name or a class.
"""

from __future__ import annotations

import array
import contextlib
import os
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from pyproc.errors import ConfigError, ProtectionUnavailable, PyprocError
from pyproc.host import credentials, landlock, pidfd
from pyproc.host.cgroup import Group
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.plan import Plan
from pyproc.sandbox.verdict import Policy
from pyproc.supervisor import denied
from pyproc.supervisor.attestation import Attestation, Zygote
from pyproc.supervisor.death import explain
from pyproc.supervisor.dialogue import (
    Applied,
    Breach,
    Dialogue,
    ForkFailed,
    LayerRefused,
    Loaded,
    Message,
    Offered,
    Phase,
    ScriptFailed,
)
from pyproc.supervisor.doorkeeper import Doorkeeper
from pyproc.supervisor.keeper import Keeper
from pyproc.supervisor.loop import Loop
from pyproc.supervisor.outfit import Outfit
from pyproc.supervisor.spec import Observer
from pyproc.supervisor.state import Worker
from pyproc.supervisor.strangers import end_strangers

READ_BYTES = 65536
SPOKEN_BYTES, SPOKEN_FACTOR = 1 << 20, 16  # of a zygote that go to the log; how many times that end it
END_SECONDS = 1.0  # of a keeper that was let go of before anything was made in it
STATUS_SECONDS, STATUS_LOOKS = 0.002, 200  # between two looks at a zygote that hung up; how many
REMEDIES = {
    "oom": "raise limits.memory, or load less", "cpu_limit": "raise limits.cpu_time, or do less at import",
    "signal:SIGKILL": "perhaps it used up limits.cpu_time, which ends the first process of a namespace so: raise it",
    "file_size": "raise limits.file_size, or write less", "seccomp": "profile default allows more than strict",
}


class Owner(Protocol):
    """Whom a tree tells what happens to it."""

    def tree_confined(self, tree: Tree) -> None: ...
    def tree_ready(self, tree: Tree) -> None: ...
    def tree_failed(self, tree: Tree, error: PyprocError) -> None: ...
    def tree_ended(self, tree: Tree) -> None: ...
    def spoke(self, source: str, text: bytes) -> None: ...
    def forking(self, worker: Worker) -> None: ...
    def child_met(self, worker: Worker, pid: int) -> None: ...
    def asked_too_often(self, worker: Worker) -> None: ...
    def greeted(self, worker: Worker) -> None: ...
    def not_forked(self, tree: Tree, errno: int) -> None: ...


class Origin(NamedTuple):
    """What all trees of a pool share: its name, what its processes are held to, system call numbers with their names, who
    observes them where a policy is being learnt, and whether the import may leave nothing that its workers share."""

    pool: str
    policy: Policy
    names: dict[int, str]
    observer: Observer | None
    apart: bool


class Tree:
    """A keeper, a zygote (pid 1 of its namespaces) and the workers forked from it."""

    def __init__(self, owner: Owner, loop: Loop, plan: Plan, interpreter: Interpreter, origin: Origin) -> None:
        self._owner = owner
        self._name, self._policy = origin.pool, origin.policy
        self._loop = loop
        self._dialogue = Dialogue()
        self.layers = frozenset(name for name, layer in plan.layers.items() if layer.state == "enforced")
        self.attestation = Attestation(plan, apart=origin.apart)
        self.doorkeeper = Doorkeeper(self, origin.names, origin.observer)
        self.pid = 0
        self.pidfd = -1
        self.zygote: Zygote | None = None
        self.solo = bool(plan.document["solo"])
        self._script: str = plan.document["script"]["path"]
        self.closed = False
        self._spoken = 0
        self._oom = False
        self.starting: Worker | None = None
        self.group: Group | None = None
        self.workers: set[Worker] = set()
        self.keeps_the_dead: bool = plan.document["keeps_the_dead"]
        confinement = plan.document["worker"]["landlock"]
        self._ruleset = -1 if confinement is None or self.solo else landlock.ruleset(confinement["abi"])
        enters = "user_namespace" in self.layers
        try:
            self._keeper = Keeper(plan, interpreter, loop, enters=enters)
        except BaseException:
            if self._ruleset >= 0:
                os.close(self._ruleset)
            raise
        try:
            self._watch(enters=enters)
        except BaseException:
            self.close()
            self.await_end(END_SECONDS)
            raise

    def _watch(self, *, enters: bool) -> None:
        loop, keeper = self._loop, self._keeper
        loop.watch(keeper.output, self._drain)
        loop.watch(keeper.control.fileno(), self._hear)
        loop.watch(keeper.fd, self._keeper_ended)
        if enters:
            loop.watch(keeper.lifeline.fileno(), self._map)

    @property
    def gone(self) -> bool:
        """The zygote is ending, and takes its workers with it. Its end of the control channel tells: the kernel closes the
        descriptors of a first process, then ends the others of its namespace, and only then lets the pidfd tell."""
        return self.closed or self._keeper.hung_up

    @property
    def ready(self) -> bool:
        """The script is imported and the zygote attested."""
        return self.zygote is not None

    def fork(self, worker: Worker, outfit: Outfit) -> None:
        """Ask for a worker on the outfit's descriptors. It says `ready` on its greeting socket. Raises OSError."""
        self.starting = worker
        self.doorkeeper.open_fork()
        credentials.ask(worker.channel.greeting, on=True)
        lent = outfit.inner if self._ruleset < 0 else (*outfit.inner, self._ruleset)
        self._keeper.control.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", lent))])
        self._loop.watch(worker.channel.greeting.fileno(), lambda: self._owner.greeted(worker))

    def buried(self, worker: Worker) -> None:
        """Its status was read: a zygote that keeps the dead may let go of it."""
        if self.keeps_the_dead and worker.inner_pid and not self.closed:
            with contextlib.suppress(OSError):  # the zygote is ending, or its pipe is full: it goes with the zygote
                self._keeper.control.send(b"R" + worker.inner_pid.to_bytes(4, "big"), socket.MSG_NOSIGNAL)

    def started(self) -> None:
        """The worker may serve, or is given up: nothing is granted at the door any more."""
        self.starting = None
        self.doorkeeper.close()

    def end_strangers(self) -> None:
        """Kill what was forked from the zygote and is no worker: a start that was given up, whoever it is."""
        if not self.solo and not self.closed:
            end_strangers(self.pid, {worker.pid for worker in self.workers})

    def close(self) -> None:
        """End the whole tree: the keeper sees the lifeline close and kills pid 1."""
        if self.closed:
            return
        self.closed = True
        keeper = self._keeper
        for fd in (keeper.control.fileno(), keeper.lifeline.fileno(), keeper.output, keeper.sender, self.doorkeeper.listener):
            self._loop.unwatch(fd)
        if self.pidfd >= 0:
            pidfd.kill(self.pidfd)
        self._let_go()

    def await_end(self, seconds: float) -> None:
        """Wait for the end of a closed tree's keeper, with which everything in it has ended, and reap it."""
        if self._keeper.fd >= 0:
            pidfd.wait(self._keeper.fd, seconds)
            self._reap()

    def forget(self) -> None:
        """In a forked child: close every descriptor of the tree."""
        self._let_go()
        if self._keeper.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._keeper.fd)

    def _let_go(self) -> None:
        self.doorkeeper.shut()
        self._keeper.let_go()
        for fd in (self.pidfd, self._ruleset):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.pidfd = self._ruleset = -1

    def _reap(self) -> None:
        self._loop.unwatch(self._keeper.fd)
        self._keeper.reap()

    def _map(self) -> None:
        try:
            sign = self._keeper.lifeline.recv(1)
        except BlockingIOError:
            return
        self._loop.unwatch(self._keeper.lifeline.fileno())
        if sign != b"U":
            return  # it ended, and its pidfd tells
        try:
            self._keeper.write_maps()
        except OSError as error:
            self._fail(ProtectionUnavailable(f"layer user_namespace: its map cannot be written: {error}",
                                             layer="user_namespace"))

    def _hear(self) -> None:
        try:
            greeting = credentials.receive(self._keeper.control, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            greeting = credentials.Greeting(b"", 0, 0, -1, False)
        if not greeting.data and self.ready and self.solo:
            self._loop.unwatch(self._keeper.control.fileno())  # it has become the worker; its pidfd tells the rest
            return
        # pid 1 speaks first when the plan is applied; a failure before that is told by its parent, the keeper
        if greeting.data and not greeting.surplus and self.pid == 0 and greeting.pid != self._keeper.pid:
            self.pid, self.pidfd = greeting.pid, greeting.pidfd
            self.doorkeeper.door.zygote = self.pid
        elif greeting.pidfd >= 0:
            os.close(greeting.pidfd)
        if greeting.surplus:
            self._fail(PyprocError("the zygote hung up after it sent descriptors"))
            return
        if not greeting.data:
            self._loop.unwatch(self._keeper.control.fileno())
            self._hung_up(STATUS_LOOKS)
            return
        breach: Breach | None = None
        try:
            messages: Iterable[Message] = self._dialogue.receive(greeting.data)
        except Breach as error:
            messages, breach = error.before, error
        for message in messages:
            if not self.closed:
                self._heard(message)
        if breach is not None:
            self._fail(PyprocError(str(breach)))

    def _hung_up(self, left: int) -> None:
        """The control channel ended: that of a zygote that died, whose status the kernel tells in a moment, or that lives on."""
        if self.closed:
            return
        status = pidfd.exit_status(self.pidfd, self.pid) if self.pidfd >= 0 else None
        if status is not None:
            self._fail(self._explained(status))
        elif left > 0:
            self._loop.later(STATUS_SECONDS, lambda: self._hung_up(left - 1))
        else:
            self._fail(PyprocError("the zygote hung up"))

    def _explained(self, status: int) -> PyprocError:
        """Why the zygote ended: while it loads the script, that is the script's doing."""
        if self.group is not None:
            with contextlib.suppress(OSError):
                self._oom = self.group.oom_kills() > 0
        death = explain(status, None, oom=self._oom)
        if self._dialogue.phase is not Phase.LOADING:
            return PyprocError(f"the zygote ended: {death.reason}")
        return ConfigError(f"script {self._script!r} ended its process while it was loaded: {death.reason} ({death.evidence}); "
                           f"{REMEDIES.get(death.reason, 'run it alone, or call less of it at import')}")

    def _heard(self, message: Message) -> None:
        match message:
            case Applied(layers):
                self._confined(layers)
            case Offered(descriptor):
                self._take_listener(descriptor)
            case Loaded():
                self._attest()
            case LayerRefused(layer, text):
                self._fail(ProtectionUnavailable(f"layer {layer} could not be applied: {text}", layer=layer))
            case ScriptFailed(text, last, refused):
                self._owner.spoke("script", text.encode(errors="replace"))
                self._fail(ConfigError(f"script {self._script!r} cannot be loaded inside the sandbox: {last}{self._line(text)}"
                                       f"{denied.script(self._policy, self._name, refused)}"))
            case ForkFailed(errno):
                self._owner.not_forked(self, errno)

    def _line(self, text: str) -> str:
        """Where in the script a traceback ends, as far as it says."""
        lines = re.findall(rf'^ *File "{re.escape(self._script)}", line (\d{{1,9}})', text, re.MULTILINE)
        return f" (line {lines[-1]})" if lines else ""

    def _confined(self, layers: frozenset[str]) -> None:
        """The script waits for us: what can only be told, or only be believed, before it runs."""
        wrong = self.attestation.confined(self.pid, layers)
        if wrong:
            self._fail(ProtectionUnavailable(f"the zygote is not confined as planned: {'; '.join(wrong)}", layer="attest"))

    def _take_listener(self, descriptor: int) -> None:
        if descriptor:
            try:
                self.doorkeeper.listener = pidfd.steal(self.pidfd, descriptor)
            except OSError as error:
                self._fail(ProtectionUnavailable(f"layer seccomp: its listener cannot be taken: {error}", layer="seccomp",
                                                 remedy="allow ptrace of one's own children (Yama ptrace_scope below 3)"))
                return
            os.set_inheritable(self.doorkeeper.listener, False)
            self._loop.watch(self.doorkeeper.listener, self._asked)
        self._owner.tree_confined(self)
        if not self.closed:
            with contextlib.suppress(OSError):  # it has ended, and its keeper tells
                self._keeper.control.send(b"L")

    def _attest(self) -> None:
        try:
            self.zygote = self.attestation.zygote(self.pid)
        except PyprocError as error:
            self._fail(error)
            return
        self._owner.tree_ready(self)

    def fork_granted(self) -> None:
        """The zygote is forking, which takes a millisecond."""
        if self.starting is not None:
            self._owner.forking(self.starting)

    def child_met(self, pid: int) -> None:
        """The child of the open fork has taken its first step."""
        if self.starting is not None:
            self._owner.child_met(self.starting, pid)

    def asked_too_often(self, pid: int) -> None:
        """A process keeps asking for what it is refused."""
        for worker in [worker for worker in self.workers if worker.pid == pid]:
            self._owner.asked_too_often(worker)

    def asks_without_end(self, pid: int) -> None:
        """As `asked_too_often`, or a process that a worker, or the import, has left: its tree ends."""
        if any(worker.pid == pid for worker in self.workers):
            self.asked_too_often(pid)
        else:
            self._fail(PyprocError("a process that the script has started makes notified system calls without end"))

    def _asked(self) -> None:
        if not self.doorkeeper.answer():
            self._loop.unwatch(self.doorkeeper.listener)

    def _drain(self) -> None:
        try:
            text = os.read(self._keeper.output, READ_BYTES)
        except BlockingIOError:
            return
        if text:
            self._spoken += len(text)
            if self._spoken <= SPOKEN_BYTES:
                self._owner.spoke("zygote", text)
            elif self._spoken > SPOKEN_FACTOR * SPOKEN_BYTES:
                self._fail(PyprocError(f"the script writes without end outside of calls, more than {SPOKEN_FACTOR} MiB"))
        else:
            self._loop.unwatch(self._keeper.output)

    def _keeper_ended(self) -> None:
        self._reap()
        if self.group is not None:
            with contextlib.suppress(OSError):
                self._oom = self.group.oom_kills() > 0
        self._owner.tree_ended(self)
        self._hung_up(STATUS_LOOKS)

    def _fail(self, error: PyprocError) -> None:
        if not self.closed:
            self._owner.tree_failed(self, error)
