"""The control groups of one pool: made ahead, entered, removed without waiting.

```
<controller's folder>/pyproc-<owner>/z<pid>     one zygote: what its import may use
                                    /w<number>  one worker, or the next one
```

To make one takes half a millisecond, a fifth of a worker's start: that of the next worker is made when nobody waits for it.

A group whose last process has just ended is busy for some milliseconds more: it is tried again by a timer, as nobody needs to
wait for it. What is left when this process is killed is removed by the keeper, or swept by the next supervisor.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping

from pyproc.config.options import Limits
from pyproc.errors import ProtectionUnavailable
from pyproc.host import cgroup
from pyproc.host.cgroup import Group
from pyproc.supervisor.loop import Loop

RETRY_SECONDS = 0.02
RETRIES = 50  # one second in all, as in host.group
LATE_SECONDS = 1.0  # between two tries after that: something in it lives on


class Groups:
    """`parents`: controller -> folder in which we may make groups. Raises ProtectionUnavailable for cpus without "cpu"."""

    def __init__(self, parents: Mapping[str, str], limits: Limits, loop: Loop, *, off: bool) -> None:
        self._parents = parents
        self._limits = limits
        self._loop = loop
        self._base = cgroup.owner_name()
        self._leaving: set[Group] = set()
        self._spare: Group | None = None
        self._numbers = itertools.count(1)
        if limits.cpus and ("cpu" not in parents or off):
            raise ProtectionUnavailable(f"limits.cpus is {limits.cpus}, and no cpu group is granted here", layer="cgroup",
                                        remedy="leave limits.cpus out, or delegate the cpu controller")
        cgroup.sweep(parents.values())  # what a killed supervisor left

    def folders(self) -> list[str]:
        """The pool's folder in each hierarchy."""
        return [f"{parent}/{self._base}" for parent in self._parents.values()]

    def prepare(self) -> None:
        """Have the next worker's group there already, where the system grants one."""
        if self._spare is None:
            with contextlib.suppress(OSError):  # tried again, and reported, when it is needed
                self._spare = self._new()

    def for_worker(self) -> Group:
        """A worker's group. Raises OSError."""
        group, self._spare = self._spare or self._new(), None
        return group

    def _new(self) -> Group:
        return self.make(f"w{next(self._numbers)}", 1)

    def make(self, name: str, workers: int) -> Group:
        """A group for as much as `workers` workers may use. Raises OSError."""
        limits = self._limits
        folders = {controller: f"{parent}/{self._base}/{name}" for controller, parent in self._parents.items()}
        return Group(folders, memory=limits.memory, pids=workers * (limits.threads + limits.processes) + 16, cpus=limits.cpus)

    def remove(self, group: Group) -> None:
        """Remove a group, now or as soon as the kernel lets it go."""
        self._leaving.add(group)
        self._loop.later(RETRY_SECONDS, lambda: self._try(group, RETRIES))

    def take_down(self) -> None:
        """Remove everything, waiting within the bounds of host.group."""
        for group in self._leaving if self._spare is None else (*self._leaving, self._spare):
            group.remove()
        self._leaving.clear()
        self._spare = None
        for folder in self.folders():
            cgroup.remove(folder)

    def _try(self, group: Group, left: int) -> None:
        if group not in self._leaving:
            return
        if group.remove(seconds=0.0):
            self._leaving.discard(group)
        else:
            self._loop.later(RETRY_SECONDS if left else LATE_SECONDS, lambda: self._try(group, max(0, left - 1)))
