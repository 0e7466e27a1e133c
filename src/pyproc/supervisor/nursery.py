"""Makes trees: what this machine grants and what the specification wants, planned anew for each zygote."""

from __future__ import annotations

import itertools
import logging
import os
import platform
from collections.abc import Sequence

from pyproc.host import pidfd
from pyproc.sandbox import interpreter as interpreters
from pyproc.sandbox import plan as plans
from pyproc.sandbox import probe
from pyproc.sandbox.rules import syscall_table
from pyproc.sandbox.verdict import Policy
from pyproc.supervisor.loop import Loop
from pyproc.supervisor.output import printable
from pyproc.supervisor.spec import WorkerSpec
from pyproc.supervisor.tree import Origin, Owner, Tree

log = logging.getLogger("pyproc")
_ordinals = itertools.count(os.getpid())  # of all trees of this process: those of root have a uid each


class Nursery:
    """`cgroups`: the pool's folders; `no_cgroup`: why there are none, or "". What is wrong with the options is said when this is
    made, before anything is started. Raises ConfigError, ProtectionUnavailable."""

    def __init__(self, spec: WorkerSpec, loop: Loop, cgroups: Sequence[str], no_cgroup: str) -> None:
        self._spec = spec
        self._loop = loop
        self._cgroups = list(cgroups)
        self._interpreter = interpreters.describe(spec.python)
        granted, self._abi = probe.granted()
        self._granted = {**granted, "cgroup": no_cgroup}
        first = self._plan(0)
        self.layers = first.layers
        groups = frozenset(os.getgroups()) if os.geteuid() else frozenset()  # workers of root are in none
        self.policy = Policy.of(first, spec.sandbox, spec.limits, groups)
        names = {number: name for name, number in syscall_table(platform.machine()).items()}
        self._origin = Origin(spec.name, self.policy, names, spec.observer, spec.apart)
        off = [name for name, layer in first.layers.items() if layer.state == "off"]
        if off:
            log.warning("layers_off pool=%s layers=%s", spec.name, ",".join(off))
        for remark in first.remarks:
            log.warning("profile_remark pool=%s text=%s", spec.name, printable(remark))

    def plant(self, owner: Owner) -> Tree:
        """Boot one zygote. Raises ConfigError, ProtectionUnavailable."""
        return Tree(owner, self._loop, self._plan(next(_ordinals)), self._interpreter, self._origin)

    def _plan(self, ordinal: int) -> plans.Plan:
        spec = self._spec
        return plans.build(
            sandbox=spec.sandbox, limits=spec.limits, interpreter=self._interpreter, granted=self._granted,
            landlock_abi=self._abi, environment=spec.environment, script=spec.script, source=spec.source,
            preload=spec.preload, workers=1 if spec.solo else spec.workers + spec.parked, ordinal=ordinal,
            solo=spec.solo, uid=os.geteuid(), gid=os.getegid(), cgroups=self._cgroups, warm=spec.parked > 0,
            busy_polling=spec.busy_polling,
            keeps_the_dead=not pidfd.tells_of_the_reaped())
