"""One zygote and what hangs on it: boot dialogue, forks, attestation. Driven by the supervisor's loop; never waits.

The dialogue is drawn in `pyproc_worker.boot`. What the zygote says is hostile input once the script was imported: a
message is bounded and parsed as JSON, a worker's identity comes from the kernel with its first message, and nothing that
arrives chooses a path, a name or a class.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Callable
from errno import EPERM
from typing import Any, Protocol

from pyproc.errors import ConfigError, ProtectionUnavailable, PyprocError
from pyproc.host import credentials, notify, pidfd, procfs, spawn
from pyproc.host.cgroup import Group
from pyproc.sandbox import attest
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.plan import Plan
from pyproc.sandbox.profile import syscall_table
from pyproc.supervisor.door import REFUSALS_MAX, Door
from pyproc.supervisor.state import Worker

MESSAGE_BYTES = 1 << 20  # the longest message that is accepted of a zygote
ZYGOTE_DESCRIPTORS = frozenset({0, 1, 2, 3})


class Owner(Protocol):
    """What a tree asks of the supervisor."""

    def watch(self, fd: int, action: Callable[[], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def tree_ready(self, tree: Tree) -> None: ...
    def tree_failed(self, tree: Tree, error: PyprocError) -> None: ...
    def greeted(self, worker: Worker, data: bytes) -> None: ...
    def worker_refused(self, worker: Worker, text: str) -> None: ...
    def condemn(self, worker: Worker, reason: str) -> None: ...
    def limit_zygote(self, tree: Tree) -> None: ...
    def spoke(self, source: str, text: bytes) -> None: ...


class Tree:
    """A keeper, a zygote (pid 1 of its namespaces) and the workers forked from it."""

    def __init__(self, owner: Owner, plan: Plan, interpreter: Interpreter, numbers: dict[int, str]) -> None:
        self._owner = owner
        self._plan = plan
        self._names = numbers
        self._buffer = b""
        self._expect: Callable[[dict[str, Any]], None] = self._listener_offered
        self.layers = frozenset(name for name, layer in plan.layers.items() if layer.state == "enforced")
        self.pid = 0
        self.pidfd = -1
        self.listener = -1
        self.namespaces: dict[str, str] | None = None
        self.own_namespaces = procfs.namespaces(os.getpid())
        self.own_filters = procfs.status(os.getpid()).filters
        self.groups = frozenset(os.getgroups()) | {plan.host_gid}
        self.door = Door()
        self._files: dict[int, str] = {}
        self.ready = False
        self.closed = False
        self.starting: Worker | None = None
        self.group: Group | None = None
        self.workers: set[Worker] = set()
        self.control, control = socket.socketpair()
        self.lifeline, lifeline = socket.socketpair()
        self.output, output = os.pipe()
        credentials.ask(self.control, on=True)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        entrance = os.path.join(interpreter.packages, "pyproc_worker", "__main__.py")
        stage = "door" if "user_namespace" in self.layers else "inner"
        argv = [interpreter.executable, "-I", "-B", "-S", entrance, interpreter.packages, stage]
        try:
            self.keeper, self.keeper_fd = spawn.spawn(
                argv, env=plan.environment,
                fds={0: null, 1: output, 2: output, 3: control.fileno(), 4: lifeline.fileno()})
        except OSError as error:
            raise ConfigError(f"python {interpreter.executable!r} cannot be started: {error}") from error
        finally:
            for fd in (null, output):
                os.close(fd)
            control.close()
            lifeline.close()
        self.control.setblocking(False)
        self.lifeline.setblocking(False)
        os.set_blocking(self.output, False)
        owner.watch(self.output, self._drain)
        owner.watch(self.control.fileno(), self._hear)
        owner.watch(self.keeper_fd, self._keeper_ended)
        if stage == "door":
            owner.watch(self.lifeline.fileno(), self._map)
        else:
            self._send_plan()

    def fork(self, worker: Worker, fds: list[int]) -> None:
        """Ask for a worker on these descriptors (channel, stdout, stderr). Its `ready` arrives on its channel."""
        self.starting = worker
        self.door.open_fork()
        credentials.ask(worker.sock, on=True)
        worker.sock.setblocking(False)
        rights = array.array("i", fds)
        self.control.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self._owner.watch(worker.sock.fileno(), lambda: self._greet(worker))

    def close(self) -> None:
        """End the whole tree: the keeper sees the lifeline close and kills pid 1."""
        if self.closed:
            return
        self.closed = True
        for fd in (self.control.fileno(), self.lifeline.fileno(), self.output, self.listener):
            if fd >= 0:
                self._owner.unwatch(fd)
        if self.pidfd >= 0:
            pidfd.kill(self.pidfd)
            os.close(self.pidfd)
        self.lifeline.close()
        self.control.close()
        os.close(self.output)
        if self.listener >= 0:
            os.close(self.listener)

    def _map(self) -> None:
        """Stage 0 sits in its user namespace: write its maps, which the namespace's owner may."""
        with contextlib.suppress(BlockingIOError):
            if self.lifeline.recv(1) != b"U":
                self._owner.unwatch(self.lifeline.fileno())
                return
            self._owner.unwatch(self.lifeline.fileno())
            texts = [("setgroups", "deny")] if self._plan.deny_setgroups else []
            texts += [("uid_map", self._plan.uid_map), ("gid_map", self._plan.gid_map)]
            try:
                for name, text in texts:
                    with open(f"/proc/{self.keeper}/{name}", "w", encoding="ascii") as file:
                        file.write(text)
                self.lifeline.send(b"M")
                self._send_plan()
            except OSError as error:
                self._fail(ProtectionUnavailable(f"layer user_namespace: its map cannot be written: {error}",
                                                 layer="user_namespace"))

    def _send_plan(self) -> None:
        payload = json.dumps(self._plan.document).encode()
        self.control.setblocking(True)
        self.control.sendall(len(payload).to_bytes(4, "big") + payload)
        self.control.setblocking(False)

    def _hear(self) -> None:
        try:
            greeting = credentials.receive(self.control, 65536)
        except BlockingIOError:
            return
        except OSError:
            greeting = credentials.Greeting(b"", 0, 0, -1, False)
        if not greeting.data and self.ready and self._plan.document["solo"]:
            self._owner.unwatch(self.control.fileno())  # it has become the worker; its pidfd tells the rest
            return
        if not greeting.data or greeting.surplus:
            if greeting.pidfd >= 0:
                os.close(greeting.pidfd)
            self._fail(PyprocError("the zygote hung up"))
            return
        # pid 1 speaks first when the plan is applied; a failure before that is told by its parent, the keeper
        if self.pid == 0 and greeting.pid != self.keeper:
            self.pid, self.pidfd = greeting.pid, greeting.pidfd
            self.door.zygote = self.pid
        elif greeting.pidfd >= 0:
            os.close(greeting.pidfd)
        self._buffer += greeting.data
        while len(self._buffer) >= 4 and not self.closed:
            length = int.from_bytes(self._buffer[:4], "big")
            if length > MESSAGE_BYTES:
                self._fail(PyprocError(f"the zygote announces {length} bytes, limit is {MESSAGE_BYTES}"))
                return
            if len(self._buffer) < 4 + length:
                return
            payload, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
            try:
                message = json.loads(payload)
                failed = message.get("failed")
            except (ValueError, AttributeError, RecursionError):
                self._fail(PyprocError("the zygote's message is not a JSON object"))
                return
            if isinstance(failed, dict):
                self._refused(failed)
            else:
                self._expect(message)

    def _refused(self, failed: dict[str, Any]) -> None:
        text = str(failed.get("text", ""))[:MESSAGE_BYTES]
        if "layer" in failed:
            layer = str(failed["layer"])[:100]
            self._fail(ProtectionUnavailable(f"layer {layer} could not be applied: {text[:500]}", layer=layer))
            return
        last = text.strip().rpartition("\n")[2]
        self._owner.spoke("script", text.encode())
        self._fail(ConfigError(f"script {failed.get('script')!r} cannot be loaded inside the sandbox: {last[:500]}"))

    def _listener_offered(self, message: dict[str, Any]) -> None:
        number = message.get("listener")
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 20:
            self._fail(PyprocError("the zygote's first message is not its listener"))
            return
        if number:
            try:
                self.listener = pidfd.steal(self.pidfd, number)
            except OSError as error:
                self._fail(ProtectionUnavailable(f"layer seccomp: its listener cannot be taken: {error}", layer="seccomp",
                                                 remedy="allow ptrace of one's own children (Yama ptrace_scope below 3)"))
                return
            os.set_inheritable(self.listener, False)
            self._owner.watch(self.listener, self._decide)
        self._expect = self._loaded
        try:
            self._owner.limit_zygote(self)
        except OSError as error:
            self._fail(ProtectionUnavailable(f"layer cgroup: the zygote cannot join its group: {error}", layer="cgroup"))
            return
        self.control.send(b"L")

    def _loaded(self, message: dict[str, Any]) -> None:
        if message.get("loaded") is not True or self.ready:
            self._fail(PyprocError("the zygote speaks out of turn"))
            return
        try:
            status, found = procfs.status(self.pid), procfs.descriptors(self.pid)
            self.namespaces = procfs.namespaces(self.pid)
            children = procfs.children(self.pid)
        except OSError as error:
            self._fail(PyprocError(f"the zygote cannot be attested: {error}"))
            return
        if children:
            self._fail(ConfigError(f"the script leaves {len(children)} processes running after its import; start them in a "
                                   "function, and wait for those that the import needs"))
            return
        if not self._plan.document["solo"]:
            if status.threads != 1:
                self._fail(ConfigError(f"the script runs {status.threads} threads after its import; threads do not "
                                       "survive a fork: start them in a function, or make the pool with zygote=False"))
                return
            kept = {fd: what for fd, what in found.items() if fd not in ZYGOTE_DESCRIPTORS and not what.startswith("/")}
            if kept:
                self._fail(ConfigError(f"the script leaves descriptors open after its import ({kept}); sockets and pipes "
                                       "cannot be shared by workers: open them in a function, or use zygote=False"))
                return
        self._files = {fd: what for fd, what in found.items() if fd not in ZYGOTE_DESCRIPTORS}
        wrong = attest.differences(self._expected(None, found, self.own_filters + 1, status.threads, None), status,
                                   self.namespaces, found)
        if wrong:
            self._fail(ProtectionUnavailable(f"the zygote is not confined as planned: {'; '.join(wrong)}", layer="attest"))
            return
        self._expect = self._only_fork_failures
        self.ready = True
        self._owner.tree_ready(self)

    def _only_fork_failures(self, message: dict[str, Any]) -> None:
        worker = self.starting
        if worker is None or "fork_failed" not in message:
            self._fail(PyprocError("the zygote speaks out of turn"))
            return
        self._give_up(worker, f"fork was refused with errno {message['fork_failed']}")

    def _greet(self, worker: Worker) -> None:
        """A new worker's first message: who is it, is it confined as planned, what does it expose."""
        try:
            greeting = credentials.receive(worker.sock, 65536)
        except BlockingIOError:
            return
        except OSError:
            greeting = credentials.Greeting(b"", 0, 0, -1, False)
        if worker.pidfd < 0:
            worker.pid, worker.pidfd, worker.uid = greeting.pid, greeting.pidfd, greeting.uid
        elif greeting.pidfd >= 0:
            os.close(greeting.pidfd)
        if not greeting.data or greeting.surplus or greeting.pid != worker.pid:
            self._give_up(worker, "it hung up or sent descriptors before it was ready")
            return
        self._owner.greeted(worker, greeting.data)

    def welcome(self, worker: Worker) -> list[str]:
        """Attest the worker that has just greeted; what differs, as text."""
        solo = bool(self._plan.document["solo"])
        try:
            status, found = procfs.status(worker.pid), procfs.descriptors(worker.pid)
            namespaces = procfs.namespaces(worker.pid)
        except OSError as error:
            return [f"it cannot be read: {error}"]
        channel, out, err = worker.inner
        descriptors = {0: "/dev/null", 1: out, 2: err, 3: channel, **self._files}
        expected = self._expected(worker, descriptors, self.own_filters + (1 if solo else 2),
                                  status.threads if solo else 1, None if solo else self.pid)
        return attest.differences(expected, status, namespaces, found)

    def _expected(self, worker: Worker | None, descriptors: dict[int, str], filters: int, threads: int,
                  parent: int | None) -> attest.Expected:
        return attest.Expected(self.layers, self._plan.host_uid, self._plan.host_gid, self.groups, filters, threads, parent,
                               descriptors, self.own_namespaces,
                               None if worker is None or self._plan.document["solo"] else self.namespaces)

    def started(self) -> None:
        """The worker may serve: nothing is granted at the door any more."""
        self.starting = None
        self.door.close()

    def _give_up(self, worker: Worker, text: str) -> None:
        self._owner.unwatch(worker.sock.fileno())
        self.started()
        self._owner.worker_refused(worker, text)

    def _decide(self) -> None:
        if notify.ended(self.listener):
            self._owner.unwatch(self.listener)
            return
        asked = notify.receive(self.listener)
        if asked is None:
            return
        try:
            status = procfs.status(asked.pid)
        except OSError:
            notify.answer(self.listener, asked, EPERM)  # unreadable: refused; gone: the answer reaches nobody
            return
        if not notify.valid(self.listener, asked):
            return  # the number may be another process's by now
        pid = status.tgid or asked.pid
        errno = self.door.decide(pid, status.parent, status.inner_pid, self._names.get(asked.number, ""),
                                 asked.arguments[0])
        notify.answer(self.listener, asked, errno)
        if self.door.refused.get(pid, 0) > REFUSALS_MAX:
            for worker in [w for w in self.workers if w.pid == pid]:
                self._owner.condemn(worker, "process_limit")

    def _drain(self) -> None:
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return
        if data:
            self._owner.spoke("zygote", data)
        else:
            self._owner.unwatch(self.output)

    def _keeper_ended(self) -> None:
        self._owner.unwatch(self.keeper_fd)
        spawn.reap(self.keeper, self.keeper_fd)
        os.close(self.keeper_fd)
        self.keeper_fd = -1
        if self.group is not None:
            self.group.remove()
        self._fail(PyprocError("the zygote ended"))

    def _fail(self, error: PyprocError) -> None:
        if not self.closed:
            self._owner.tree_failed(self, error)


def call_names(machine: str) -> dict[int, str]:
    """System call number -> name, for the door."""
    return {number: name for name, number in syscall_table(machine).items()}
