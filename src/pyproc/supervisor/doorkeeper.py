"""Answers what waits at one zygote's seccomp listener: who asks is read from /proc, `door` decides.

A process is looked up once for as long as a fork is open: it cannot change its parent to the zygote, and its numbers stay. The
zygote is looked up once: it is the first process of its namespace, and whoever else could ask ends before it. A number is
believed only if the notification is still valid after the reading. Whoever cannot be read is refused.
"""

from __future__ import annotations

import os
from errno import EPERM
from typing import Protocol

from pyproc.host import notify, procfs
from pyproc.supervisor.door import ASKS_MAX, REFUSALS_MAX, Door, count
from pyproc.supervisor.spec import Observer


class Owner(Protocol):
    """Whom the doorkeeper tells, after it has answered: what then takes time takes none of the asker's."""

    def fork_granted(self) -> None: ...
    def child_met(self, pid: int) -> None: ...
    def asked_too_often(self, pid: int) -> None: ...
    def asks_without_end(self, pid: int) -> None: ...


class Doorkeeper:
    """`names`: system call number -> name. The child of an open fork is met once, when its first step was let pass. With an
    `observer` what the door refuses is his to decide, and is not counted."""

    def __init__(self, owner: Owner, names: dict[int, str], observer: Observer | None = None) -> None:
        self._owner = owner
        self._observer = observer
        self.door = Door()
        self.listener = -1
        self._names = names
        self._known: dict[int, procfs.Caller] = {}
        self._asked: dict[int, int] = {}
        self._met = 0

    def open_fork(self) -> None:
        """We are about to ask the zygote for one worker."""
        self._forget_children()
        self._met = 0
        self.door.open_fork()

    def close(self) -> None:
        """The worker is ready (or given up): nothing is granted any more."""
        self._forget_children()
        self.door.close()

    def _forget_children(self) -> None:
        zygote = self._known.get(self.door.zygote)
        self._known = {} if zygote is None else {self.door.zygote: zygote}

    def forget(self, pid: int) -> None:
        """That process has ended; its number may come again."""
        self._known.pop(pid, None)
        self.door.refused.pop(pid, None)
        self._asked.pop(pid, None)

    def answer(self) -> bool:
        """Decide one waiting call; False when nobody is left who could ask."""
        asked = notify.receive(self.listener)
        if asked is None:
            return not notify.ended(self.listener)
        caller = self._known.get(asked.pid)
        if caller is None:
            try:
                caller = procfs.caller(asked.pid)
            except (OSError, ValueError):
                notify.answer(self.listener, asked, EPERM)  # unreadable: refused; gone: the answer reaches nobody
                return True
            if not notify.valid(self.listener, asked):
                return True  # the number may be another process's by now
            if self.door.is_open:
                self._known[asked.pid] = caller
        name = self._names.get(asked.number, "")
        errno = self.door.decide(caller.pid, caller.parent, caller.inner_pid, name, asked.arguments[0])
        if errno and self._observer is not None:
            errno = self._observer.asked(asked, name, importing=caller.pid == self.door.zygote)
            if notify.valid(self.listener, asked):
                notify.answer(self.listener, asked, errno)
            return True
        notify.answer(self.listener, asked, errno)
        self._tell(caller.pid, errno)
        if count(self._asked, caller.pid) > ASKS_MAX:
            self._owner.asks_without_end(caller.pid)
        return True

    def _tell(self, pid: int, errno: int) -> None:
        if errno:
            if self.door.refused.get(pid, 0) > REFUSALS_MAX:
                self._owner.asked_too_often(pid)
        elif pid == self.door.zygote and self.door.child_expected:
            self._owner.fork_granted()
        elif pid == self.door.child and self._met != pid:
            self._met = pid
            self._owner.child_met(pid)

    def shut(self) -> None:
        """Give the listener back; who waits at it gets ENOSYS of the kernel."""
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1
