"""Decides each call that waits at a zygote's seccomp listener. Pure: who asks, for what, in which phase, in; errno out.

    zygote       clone              only while a fork that we asked for is open, once
    the child    setsid, unshare, seccomp                              until its `ready` arrived
    anybody      tgkill             only to its own process
    all else     EPERM, counted; a worker that keeps asking is ended (process_limit)

Whoever asks without end, whatever it is told, is ended too; if it is no worker, with its whole tree.

Whatever a worker applies to itself after the user's import would be advisory; this is how the kernel lets a worker confine
itself further while import-time code, and a worker that serves, are refused the same calls. Landlock's step is not among
them: it can only take away, and the ruleset that the child enters is lent by us: nobody inside makes or changes one.
"""

from __future__ import annotations

import errno

from pyproc.sandbox.derive import FORK_FLAGS

CONFINING = frozenset({"setsid", "unshare", "seccomp"})
ASKS_MAX = 10_000  # of anything, granted too: each costs the supervisor 20 us or so
ASKERS_MAX = 1024
REFUSALS_MAX = 64  # within one worker's life; an honest program asks once or twice and gives up


class Door:
    """The phase of one zygote and what it has been refused."""

    def __init__(self) -> None:
        self.zygote = 0
        self.fork_open = False
        self.child: int | None = None
        self.child_expected = False
        self.refused: dict[int, int] = {}

    @property
    def is_open(self) -> bool:
        """A worker that we asked for is in the making."""
        return self.fork_open or self.child_expected or self.child is not None

    def open_fork(self) -> None:
        """We are about to ask the zygote for one worker."""
        self.fork_open, self.child, self.child_expected = True, None, False

    def close(self) -> None:
        """The worker is ready (or given up): nothing is granted any more."""
        self.fork_open, self.child, self.child_expected = False, None, False

    def decide(self, pid: int, parent: int, inner_pid: int, name: str, first_argument: int) -> int:
        """0 to let the call go on, else an errno. `pid` is the asking process, `parent` its parent."""
        if name == "tgkill" and first_argument & 0xFFFFFFFF == inner_pid:
            return 0
        if name == "clone" and pid == self.zygote and self.fork_open and first_argument & 0xFFFFFFFF == FORK_FLAGS:
            self.fork_open, self.child_expected = False, True
            return 0
        if name in CONFINING and pid != self.zygote:
            # profile default does not ask about fork: there the zygote's next child is the one that we asked for
            if (self.child_expected or self.fork_open) and self.child is None and parent == self.zygote:
                self.child, self.fork_open = pid, False
            if self.child == pid:
                return 0
        count(self.refused, pid)
        return errno.EPERM


def count(asked: dict[int, int], pid: int) -> int:
    """One more for `pid`; of the processes that asked once and are gone nobody tells, so the oldest are let go of."""
    asked[pid] = asked.get(pid, 0) + 1
    if len(asked) > ASKERS_MAX:
        del asked[next(iter(asked))]
    return asked.get(pid, 1)
