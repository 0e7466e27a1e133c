"""Values of an explanation: what workers are held to, a change of the configuration, a verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pyproc.config.options import Limits, Sandbox
from pyproc.sandbox import derive, profile
from pyproc.sandbox.paths import Look, View, shown_for
from pyproc.sandbox.plan import DEVICES, Plan
from pyproc.sandbox.rules import Profile


class Change(NamedTuple):
    """A key of pyproc.toml below its pool, and its value; of `sandbox.read` the entry that is added."""

    key: str
    value: str | int
    note: str = ""

    def __str__(self) -> str:
        shown = self.value if isinstance(self.value, int) else f'"{self.value}"'
        text = f"{self.key} = [..., {shown}]" if self.key == "sandbox.read" else f"{self.key} = {shown}"
        return f"{text} ({self.note})" if self.note else text


class Verdict(NamedTuple):
    """`layer`, `errno`: of a refusal. `why`: what decides, in words. `changes` allow it together; where there are none, `why_none`."""

    allowed: bool
    why: str
    layer: str = ""
    errno: int = 0
    changes: tuple[Change, ...] = ()
    why_none: str = ""

    @property
    def change(self) -> str:
        """The smallest change in words."""
        if self.allowed:
            return "none is needed"
        return " and ".join(map(str, self.changes)) if self.changes else f"no change allows it: {self.why_none}"


@dataclass(frozen=True)
class Policy:
    """What one pool's workers are held to: the configuration and, of its plan, what is in force on this machine.

    `proposes`: paths to list are proposed; not for a policy that is itself tried as a proposal.
    """

    sandbox: Sandbox
    limits: Limits
    layers: frozenset[str]
    view: View
    readable: tuple[str, ...]
    script: str = ""
    proposes: bool = True

    @classmethod
    def of(cls, plan: Plan, sandbox: Sandbox, limits: Limits, groups: frozenset[int] = frozenset()) -> Policy:
        """From a plan. `groups`: of a worker that keeps its supervisor's uid; others are in none."""
        document: Mapping[str, Any] = plan.document
        on = frozenset(document["layers"])
        mounts = tuple(m["target"] for m in document["mounts"] if m["target"] not in DEVICES)
        devices = tuple(m["target"] for m in document["mounts"] if m["target"] in DEVICES)
        view = View("mount_namespace" in on, mounts, devices, document["links"], document["scratch"]["path"], plan.host_uid,
                    plan.host_gid, groups)
        readable = tuple(path for path, mode in document["landlock"]["rules"] if mode == "read")
        return cls(sandbox, limits, on, view, readable, document["script"]["path"])

    @cached_property
    def filters(self) -> tuple[Profile, Profile]:
        """The two that a worker has. Raises ProfileError."""
        own = profile.named(self.sandbox.profile)
        return derive.zygote_rules(own), derive.worker_rules(own)


def changed(policy: Policy, changes: tuple[Change, ...], look: Look | None = None) -> Policy:
    """The policy with `changes` of the sandbox, on the same machine. Raises ConfigError."""
    sandbox = policy.sandbox
    chosen = {change.key: change.value for change in changes}
    read = tuple(str(change.value) for change in changes if change.key == "sandbox.read")
    made = Sandbox(str(chosen.get("sandbox.profile", sandbox.profile)), read=(*sandbox.read, *read),
                   scratch=chosen.get("sandbox.scratch", sandbox.scratch), layers=sandbox.layers)
    shown = tuple(shown_for(path, look) for path in read)
    view = policy.view._replace(mounts=(*policy.view.mounts, *shown))
    return Policy(made, policy.limits, policy.layers, view, (*policy.readable, *shown), policy.script, proposes=not read)
