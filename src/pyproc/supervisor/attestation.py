"""Reads from /proc what a zygote or a worker is, and has `sandbox.attest` compare it. What a process says of itself counts
only before the script runs.

A zygote has one thread, no children and the known descriptors before anything is forked from it: what it holds, each worker
inherits; where calls are kept apart it may hold none that carries something from one to the next, and no such memory. Before its
script runs, its environment, its limits and the steps that it took are looked at too: later it could have overwritten the one,
and could say anything of the others. A worker has in addition its parent, its own user namespace, one filter more, its pipes and
its control group.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from pyproc.errors import ConfigError, ProtectionUnavailable, PyprocError
from pyproc.host import procfs
from pyproc.sandbox import attest
from pyproc.sandbox.plan import Plan
from pyproc.supervisor.state import Worker
from pyproc_wire.errors import printable
from pyproc_wire.places import GREETING

ZYGOTE_DESCRIPTORS = frozenset(range(8))  # as `pyproc_worker.newborn` places them; 4 to 7 are kept free for a worker

LEFT_CHARS = 1000  # of what a refusal names


class Zygote(NamedTuple):
    """What workers are compared with; `files`: descriptors beyond the known ones, which they inherit."""

    pid: int
    namespaces: dict[str, str]
    files: dict[int, str]


class Attestation:
    """The expectations of one plan, with what the supervisor itself is."""

    def __init__(self, plan: Plan, *, apart: bool) -> None:
        own = procfs.status(os.getpid())
        self._plan = plan
        self._solo = bool(plan.document["solo"])
        self._apart = apart and not self._solo
        self._layers = frozenset(name for name, layer in plan.layers.items() if layer.state == "enforced")
        self._own_namespaces = procfs.namespaces(os.getpid())
        self._own_filters = own.filters
        self._groups = frozenset(os.getgroups()) | {plan.host_gid}

    def confined(self, pid: int, applied: frozenset[str]) -> list[str]:
        """What differs in pid 1 before it runs the script, as text. `applied`: the layers that it says it has applied."""
        try:
            limits, environment = procfs.limits(pid), procfs.environment(pid)
            owner = os.stat(f"/proc/{pid}/status").st_uid
        except OSError as error:
            return [f"it cannot be read: {error}"]
        hidden = owner != self._plan.host_uid if self._plan.host_uid != os.geteuid() else None
        return attest.unconfined(self._layers, applied, environment=(environment, self._plan.environment),
                                 limits=(limits, self._plan.rlimits), hidden=hidden)

    def zygote(self, pid: int) -> Zygote:
        """Attest the zygote after its import. Raises PyprocError saying what is not as it must be."""
        try:
            status, found = procfs.status(pid), procfs.descriptors(pid)
            namespaces = procfs.namespaces(pid)
            children = procfs.children(pid)
            memory = procfs.shared_memory(pid) if self._apart else []
        except OSError as error:
            raise PyprocError(f"the zygote cannot be attested: {error}") from error
        files = {fd: what for fd, what in found.items() if fd not in ZYGOTE_DESCRIPTORS}
        script = self._plan.document["script"]["path"]
        if children:
            raise ConfigError(f"script {script!r} leaves {len(children)} processes running after its import; start them in a "
                              "function, and wait for those that the import needs")
        if not self._solo:
            _refuse_what_no_fork_shares(script, status.threads, files)
        if self._apart and (files or memory):
            left = ", ".join((*(f"descriptor {fd}: {what}" for fd, what in files.items()), *(f"memory: {what}" for what in memory)))
            raise ConfigError(f"script {script!r} leaves open after its import what its calls would share "
                              f"({printable(left, LEFT_CHARS)}), "
                              'and isolation is "call": an offset or a page that one call writes is there for the next; open files '
                              "in a function, or read them into memory, or set the pool's option zygote to false")
        expected = self._expected(found, self._own_filters + 1, status.threads)
        wrong = attest.differences(expected, status, namespaces, found)
        if wrong:
            raise ProtectionUnavailable(f"the zygote is not confined as planned: {'; '.join(wrong)}", layer="attest")
        return Zygote(pid, namespaces, files)

    def worker(self, worker: Worker, zygote: Zygote) -> list[str]:
        """What differs in a worker that says that it is ready, as text; nothing is the permission to serve."""
        try:
            status, found = procfs.status(worker.pid), procfs.descriptors(worker.pid)
            namespaces = procfs.namespaces(worker.pid)
            groups = procfs.cgroups(worker.pid) if worker.group is not None else {}
            worker.inner_pid = status.inner_pid
        except OSError as error:
            return [f"it cannot be read: {error}"]
        descriptors = {0: "/dev/null", **dict(enumerate(worker.links, 1)), **zygote.files}
        if GREETING not in found:
            del descriptors[GREETING]  # it has greeted, and closes that socket about now
        places = worker.group.places() if worker.group is not None else {}
        if self._solo:
            expected = self._expected(descriptors, self._own_filters + 1, status.threads, places=places)
        else:
            expected = self._expected(descriptors, self._own_filters + 2, 1, zygote=zygote, places=places)
        return attest.differences(expected, status, namespaces, found, groups)

    def _expected(self, descriptors: dict[int, str], filters: int, threads: int, *, zygote: Zygote | None = None,
                  places: Mapping[str, str] | None = None) -> attest.Expected:
        return attest.Expected(
            layers=self._layers, uid=self._plan.host_uid, gid=self._plan.host_gid, groups=self._groups, filters=filters,
            threads=threads, parent=None if zygote is None else zygote.pid, descriptors=descriptors,
            own_namespaces=self._own_namespaces, zygote_namespaces=None if zygote is None else zygote.namespaces,
            places=places or {})


def _refuse_what_no_fork_shares(script: str, threads: int, files: Mapping[int, str]) -> None:
    if threads != 1:
        raise ConfigError(f"script {script!r} leaves {threads - 1} thread{'s' if threads > 2 else ''} of its own running after its "
                          "import, and threads do not survive a fork: start them in a function, or set the pool's option zygote "
                          "to false: zygote=False, in pyproc.toml zygote = false")
    kept = {fd: what for fd, what in files.items() if not what.startswith("/")}
    if kept:
        raise ConfigError(f"script {script!r} leaves descriptors open after its import ({kept}), and workers cannot share sockets "
                          "and pipes: open them in a function, or set the pool's option zygote to false: zygote=False, in "
                          "pyproc.toml zygote = false")
