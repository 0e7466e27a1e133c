"""Asks the machine what a Policy needs: the interpreter's paths, and for the policy in force the layers, each tried."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pyproc import __version__
from pyproc.errors import ConfigError
from pyproc.host import cgroup
from pyproc.policy import subject
from pyproc.sandbox import interpreter, plan, probe, profile, verdict
from pyproc.sandbox.rules import ProfileError
from pyproc.supervisor.spec import WorkerSpec

NEWEST_LANDLOCK = 7  # the newest ABI that a plan makes use of


def here(spec: WorkerSpec) -> subject.Policy:
    """The policy that a pool would have on this machine, now. Raises ConfigError, ProtectionUnavailable."""
    granted, abi = probe.granted()
    _, no_cgroup = cgroup.parents(also=("cpu",) if spec.limits.cpus else ())
    return _policy(spec, {**granted, "cgroup": no_cgroup}, abi)


def in_force(spec: WorkerSpec) -> verdict.Policy:
    """What workers of a pool would be held to on this machine, now, to ask about. Raises ConfigError, ProtectionUnavailable."""
    granted, abi = probe.granted()
    _, no_cgroup = cgroup.parents(also=("cpu",) if spec.limits.cpus else ())
    planned = _planned(spec, interpreter.describe(spec.python), {**granted, "cgroup": no_cgroup}, abi)
    groups = frozenset(os.getgroups()) if os.geteuid() else frozenset()  # workers of root are in none
    return verdict.Policy.of(planned, spec.sandbox, spec.limits, groups)


def anywhere(spec: WorkerSpec) -> subject.Policy:
    """The policy where every layer is to be had: what is exported, as it may be for another machine. Raises ConfigError."""
    return _policy(spec, dict.fromkeys(probe.NEEDS, ""), NEWEST_LANDLOCK)


def _policy(spec: WorkerSpec, granted: Mapping[str, str], abi: int) -> subject.Policy:
    try:
        rules = profile.named(spec.sandbox.profile)
    except ProfileError as error:
        raise ConfigError(f"sandbox {error}") from error
    found = interpreter.describe(spec.python)
    return subject.of(__version__, spec, rules, found, _planned(spec, found, granted, abi),
                      program=os.path.realpath(found.executable), root=os.geteuid() == 0)


def _planned(spec: WorkerSpec, found: interpreter.Interpreter, granted: Mapping[str, str], abi: int) -> plan.Plan:
    return plan.build(
        sandbox=spec.sandbox, limits=spec.limits, interpreter=found, granted=granted, landlock_abi=abi,
        environment=spec.environment, script=spec.script, source=spec.source, preload=spec.preload,
        workers=1 if spec.solo else spec.workers + spec.parked, ordinal=0,
        solo=spec.solo, uid=os.geteuid(), gid=os.getegid(), cgroups=[])
