"""A policy as one JSON document: the same facts as `text`, for programs. Sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Any

from pyproc.policy import calls
from pyproc.policy.subject import Policy
from pyproc.sandbox.derive import PID_PLACEHOLDER
from pyproc.sandbox.rules import Condition
from pyproc.sandbox.seccomp import spelled


def render(policy: Policy) -> dict[str, Any]:
    """The document of `policy show --json`, without its "ok"."""
    limits = policy.limits
    return {
        "version": policy.version, "pool": policy.pool, "script": policy.script, "profile": policy.profile,
        "machine": policy.rules.machine, "filter_sha256": policy.filter_sha256,
        "default": spelled(policy.rules.default),
        "calls": [{"names": list(group.names), "answer": group.answer, "reason": group.reason,
                   "conditions": [[_condition(c) for c in alternative] for alternative in group.alternatives]}
                  for group in calls.grouped(policy.rules)],
        "paths": {"read": list(policy.readable), "listed": list(policy.listed), "devices": list(policy.devices),
                  "scratch": {"path": policy.scratch_path, "bytes": policy.scratch, "files": limits.scratch_files}
                  if policy.scratch else None},
        "limits": {name: getattr(limits, name) for name in sorted(limits.__slots__)}, "rlimits": dict(policy.rlimits),
        "workers": policy.workers, "uids": list(policy.uids), "environment": list(policy.environment),
        "layers": {name: {"state": layer.state, "wanted": layer.wanted, "detail": layer.detail}
                   for name, layer in policy.layers.items()},
        "remarks": list(policy.remarks),
    }


def _condition(c: Condition) -> dict[str, Any]:
    own = {"pid": True} if c.value == PID_PLACEHOLDER else {"value": c.value}
    two = {"value_two": c.value_two} if c.op == "SCMP_CMP_MASKED_EQ" else {}
    return {"index": c.index, "op": c.op, **own, **two, "width": c.width}
