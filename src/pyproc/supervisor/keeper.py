"""The process that a tree hangs on: stage 0, spawned by us, which ends pid 1 when we let go of its lifeline.

It sits between us and the zygote (`pyproc_worker.boot` draws it): it enters the user namespace, whose maps are written here from
outside, takes the plan, makes the other namespaces and pid 1 in them, and waits. It never runs code of the user's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket

from pyproc.errors import ConfigError
from pyproc.host import credentials, pidfd, spawn
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.plan import Plan
from pyproc.supervisor.loop import Loop

NOTHING_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})  # of the machine, and not the interpreter's fault
END_SECONDS = 1.0  # for a process that was just killed


class Keeper:
    """`control`, `lifeline` and `output` (all non-blocking) lead into the tree; `fd` is the keeper's pidfd, -1 when reaped.

    `enters`: it enters a user namespace and waits for `write_maps`; else the plan is sent at once. The plan is sent as fast as it
    is taken: `sender` is watched until then, -1 after it. Raises ConfigError, and OSError where the machine has nothing left.
    """

    def __init__(self, plan: Plan, interpreter: Interpreter, loop: Loop, *, enters: bool) -> None:
        self._plan = plan
        self._loop = loop
        self._unsent = memoryview(b"")
        self._ours = contextlib.ExitStack()
        self.fd = self.output = self.sender = -1
        try:
            with contextlib.ExitStack() as lent:
                self._spawn(interpreter, lent, "door" if enters else "inner")
            if not enters:
                self._send_plan()
        except BaseException:
            if self.fd >= 0:
                pidfd.kill(self.fd)
                pidfd.wait(self.fd, END_SECONDS)
                self.reap()
            self.let_go()
            raise

    def _spawn(self, interpreter: Interpreter, lent: contextlib.ExitStack, stage: str) -> None:
        """Start it with the ends that are `lent`."""
        self.control, control = self._pair(lent)
        self.lifeline, lifeline = self._pair(lent)
        self.output, output = os.pipe()
        lent.callback(os.close, output)
        self._ours.callback(os.close, self.output)
        os.set_blocking(self.output, False)
        self.sender = os.dup(self.control.fileno())  # the loop knows a descriptor for one thing only
        self._ours.callback(self._stop_sending)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        lent.callback(os.close, null)
        credentials.ask(self.control, on=True)
        entrance = os.path.join(interpreter.packages, "pyproc_worker", "__main__.py")
        argv = [interpreter.executable, "-I", "-B", "-S", entrance, interpreter.packages, stage]
        try:
            self.pid, self.fd = spawn.spawn(argv, env=self._plan.environment,
                                            fds={0: null, 1: output, 2: output, 3: control, 4: lifeline})
        except OSError as error:
            if error.errno in NOTHING_LEFT:
                raise
            raise ConfigError(f"python {interpreter.executable!r} cannot be started: {error}") from error

    def _pair(self, lent: contextlib.ExitStack) -> tuple[socket.socket, int]:
        outer, inner = socket.socketpair()
        self._ours.enter_context(outer)
        lent.enter_context(inner)
        outer.setblocking(False)
        return outer, inner.fileno()

    @property
    def hung_up(self) -> bool:
        """Whether nobody in the tree holds the control channel's other end."""
        poll = select.poll()
        poll.register(self.control, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def write_maps(self) -> None:
        """It sits in its user namespace: write its maps, which the namespace's owner may, and go on. Raises OSError."""
        texts = [("setgroups", "deny")] if self._plan.deny_setgroups else []
        texts += [("uid_map", self._plan.uid_map), ("gid_map", self._plan.gid_map)]
        for name, text in texts:
            with open(f"/proc/{self.pid}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        self.lifeline.send(b"M")
        self._send_plan()

    def reap(self) -> None:
        """It has ended: take its status and let go of it."""
        if self.fd >= 0:
            spawn.reap(self.pid, self.fd)
            os.close(self.fd)
            self.fd = -1

    def let_go(self) -> None:
        """Close what leads into the tree, which ends it."""
        with contextlib.suppress(OSError):
            self._ours.close()
        self.output = -1

    def _send_plan(self) -> None:
        payload = json.dumps(self._plan.document).encode()
        self._unsent = memoryview(len(payload).to_bytes(4, "big") + payload)
        self._loop.watch(self.sender, self._send_more, room=True)

    def _send_more(self) -> None:
        try:
            sent = self.control.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)  # it has ended, and its pidfd tells
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.unwatch(self.sender)
            self._stop_sending()

    def _stop_sending(self) -> None:
        """Without the loop: in a forked child its descriptors are the parent's."""
        if self.sender >= 0:
            os.close(self.sender)
            self.sender = -1
