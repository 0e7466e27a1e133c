"""What is rendered: everything that a pool's workers may do and use, as values. Pure; `survey` fills it.

Rules and reasons:
* The rules are those of the filter that is loaded last in a worker (`derive.worker_rules`), as that is what its calls meet; the
  hash is of the program that is compiled from them, the one that `pyproc attack` reports.
* The names of environment variables are part of a policy, their values are not: they may be secrets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pyproc.config.options import Limits
from pyproc.sandbox import derive
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.plan import FIRST_WORKER_UID, SCRATCH, WORKER_UIDS, LayerState, Plan
from pyproc.sandbox.rules import Profile
from pyproc.supervisor.spec import WorkerSpec


@dataclass(frozen=True)
class Policy:
    """`pool`: its name; `program`: the interpreter's file, behind all links; `readable`: paths; `listed`: those of them that the
    configuration names; `scratch`: bytes, 0 for none; `rlimits`: name -> soft and hard, equal; `uids`: first and last that a
    worker of this supervisor may have on the host."""

    version: str
    pool: str
    script: str | None
    workers: int
    parked: int
    profile: str
    source: Profile
    rules: Profile
    filter_sha256: str
    interpreter: Interpreter
    program: str
    readable: tuple[str, ...]
    devices: tuple[str, ...]
    listed: tuple[str, ...]
    scratch_path: str
    scratch: int
    limits: Limits
    rlimits: Mapping[str, int]
    environment: tuple[str, ...]
    layers: Mapping[str, LayerState]
    uids: tuple[int, int]
    remarks: tuple[str, ...]


def of(version: str, spec: WorkerSpec, profile: Profile, interpreter: Interpreter, plan: Plan, *, program: str, root: bool) -> Policy:
    """The policy of `spec` as `plan` carries it out. `root`: the supervisor is root, and gives each tree a uid of its own."""
    template, _ = derive.worker_template(profile)
    mounts = plan.document["mounts"]
    first, last = (FIRST_WORKER_UID, FIRST_WORKER_UID + WORKER_UIDS - 1) if root else (plan.host_uid, plan.host_uid)
    return Policy(
        version=version, pool=spec.name, script=None if spec.script == "/" else spec.script, workers=spec.workers,
        parked=spec.parked,
        profile=spec.sandbox.profile, source=profile, rules=derive.worker_rules(profile),
        filter_sha256=hashlib.sha256(template).hexdigest(), interpreter=interpreter, program=program,
        readable=tuple(mount["target"] for mount in mounts if "ro" in mount["flags"]),
        devices=tuple(mount["target"] for mount in mounts if "ro" not in mount["flags"]), listed=spec.sandbox.read,
        scratch_path=SCRATCH, scratch=spec.sandbox.scratch or 0, limits=spec.limits,
        rlimits={name: hard for name, (_, hard) in plan.document["rlimits"].items()}, environment=tuple(sorted(plan.environment)),
        layers=plan.layers, uids=(first, last), remarks=plan.remarks)
