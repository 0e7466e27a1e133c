"""A worker's second line: the steps that it adds to what it inherits from the zygote, prepared before the fork.

    zygote   Confinement(plan["worker"]) ... fork
                                             .expect(ruleset)
    worker                                   .enter(): setsid, own user namespace, no capabilities, PDEATHSIG, Landlock, filter

Order as in `jail.apply`. The new user namespace hands out full capability sets and a full bounding set, so all of them are
emptied again. The ruleset is made by the supervisor, who lends its descriptor for each worker: one made in here could have
been made by the script. Each notified step is granted by the supervisor; nothing here decides. A page that is written after
a fork is copied first, which costs more than a system call: so everything that can be made is made ahead.
"""

from __future__ import annotations

import base64
import ctypes
import os
import signal
from typing import Any

from pyproc_worker.jail import credentials, libc, namespaces, seccomp

PR_SET_PDEATHSIG = 1
LENT = 8  # descriptors that a worker is given: stdout, stderr, three of its channel, two arenas and, with Landlock, a ruleset
REHEARSALS = 16  # CPython specialises code that ran about eight times; what is specialised writes to its pages no more


class Confinement:
    """`worker` is the part of the plan with that name."""

    def __init__(self, worker: dict[str, Any]) -> None:
        self._ruleset = ctypes.c_long(-1)
        self._marks: list[int] = []
        self._words = memoryview(bytearray(0))
        give_away = libc.prepare("capset", credentials.EMPTY_HEADER, credentials.EMPTY_SETS)
        steps: list[libc.Prepared] = []
        if worker["setsid"]:
            steps.append(libc.prepare("setsid"))
        if worker["user_namespace"]:
            steps.append(libc.prepare("unshare", namespaces.FLAGS["user"]))
            steps += credentials.bounding_drops()
            steps += [libc.prepare("prctl", credentials.PR_SET_SECUREBITS, credentials.SECUREBITS, 0, 0, 0), give_away]
        if worker["parent_death"]:  # a fork clears it
            steps.append(libc.prepare("prctl", PR_SET_PDEATHSIG, signal.SIGKILL))
        if worker["landlock"]:
            steps.append(libc.prepare("landlock_restrict_self", self._ruleset, 0))
        if worker["seccomp"]:
            self._program = seccomp.Program.of(base64.b64decode(worker["seccomp"]))
            steps.append(seccomp.prepared(self._program))
            self._words = self._program.words
            self._marks = [at // 4 for at in worker["marks"]]
        self._steps = steps
        self._rehearsal = [give_away] * 2

    def expect(self, ruleset: int) -> None:
        """In the zygote: the number of the ruleset that the next worker is lent, -1 without Landlock."""
        self._ruleset.value = ruleset

    def enter(self) -> None:
        """Take every step. Raises OSError naming the step."""
        pid, words = os.getpid(), self._words
        for mark in self._marks:
            words[mark] = pid
        libc.issue(self._steps)

    def rehearse(self) -> None:
        """Run the same code with a step that changes nothing in a zygote, so that it is bound and specialised."""
        steps, self._steps = self._steps, self._rehearsal
        for _ in range(REHEARSALS):
            self.enter()
        self._steps = steps
