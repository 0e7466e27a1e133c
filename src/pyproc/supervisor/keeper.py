"""The process that a tree hangs on: stage 0, spawned by us, which ends pid 1 when we let go of its lifeline.

It sits between us and the zygote (`pyproc_worker.boot` draws it): it enters the user namespace, whose maps are written here from
outside, takes the plan, makes the other namespaces and pid 1 in them, and waits. It never runs code of the user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket

from pyproc.errors import ConfigError
from pyproc.host import credentials, spawn
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.plan import Plan


class Keeper:
    """`control`, `lifeline` and `output` (all non-blocking) lead into the tree; `fd` is the keeper's pidfd, -1 when reaped.

    `enters`: it enters a user namespace and waits for `write_maps`; else the plan is sent at once. Raises ConfigError.
    """

    def __init__(self, plan: Plan, interpreter: Interpreter, *, enters: bool) -> None:
        self._plan = plan
        self.control, control = socket.socketpair()
        self.lifeline, lifeline = socket.socketpair()
        self.output, output = os.pipe()
        credentials.ask(self.control, on=True)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        entrance = os.path.join(interpreter.packages, "pyproc_worker", "__main__.py")
        stage = "door" if enters else "inner"
        argv = [interpreter.executable, "-I", "-B", "-S", entrance, interpreter.packages, stage]
        try:
            self.pid, self.fd = spawn.spawn(
                argv, env=plan.environment,
                fds={0: null, 1: output, 2: output, 3: control.fileno(), 4: lifeline.fileno()})
        except OSError as error:
            self.fd = -1
            self.let_go()
            raise ConfigError(f"python {interpreter.executable!r} cannot be started: {error}") from error
        finally:
            for fd in (null, output):
                os.close(fd)
            control.close()
            lifeline.close()
        self.control.setblocking(False)
        self.lifeline.setblocking(False)
        os.set_blocking(self.output, False)
        if not enters:
            self._send_plan()

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
        self.lifeline.close()
        self.control.close()
        if self.output >= 0:
            with contextlib.suppress(OSError):
                os.close(self.output)
            self.output = -1

    def _send_plan(self) -> None:
        payload = json.dumps(self._plan.document).encode()
        self.control.setblocking(True)
        self.control.sendall(len(payload).to_bytes(4, "big") + payload)
        self.control.setblocking(False)
