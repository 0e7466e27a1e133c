"""What the whole of a service needs: the program that makes the pool, the boot of its trees, and the workers. Pure.

A filter around a service is inherited by all that it starts, so it is the sum of what the workers' profile allows and of what
service.json lists, a reason with each call. It is a second line: it looks at no argument, and each worker adds its own two filters,
which do. The list is of a service that does not run as root: what only root does (setresuid and the like) is not in it.
Measured by tracing supervisors, boots and workers, as root and not; the tests start pools under it.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from pyproc.sandbox.rules import ACTION_MASK, ALLOW, PERMITTING, Profile, Rule, syscall_table


@cache
def needs() -> list[dict[str, Any]]:
    """What is listed beyond the workers' own calls: "names" and their "reason"."""
    found: list[dict[str, Any]] = json.loads(files(__package__).joinpath("service.json").read_text("ascii"))
    return found


def names(profile: Profile) -> list[str]:
    """Every call that a service of workers under `profile` may make, sorted."""
    own = {rule.name for rule in profile.rules if rule.action & ACTION_MASK in PERMITTING}
    return sorted(own | {name for need in needs() for name in need["names"]})


def around(profile: Profile) -> Profile:
    """The filter around the service as a profile, for a container engine: `names` without conditions, EPERM for the rest."""
    table = syscall_table(profile.machine)
    reasons = {name: need["reason"] for need in needs() for name in need["names"]}
    rules = tuple(Rule(name, table[name], ALLOW, (), reasons.get(name, "workers: their own filters look at its arguments"))
                  for name in names(profile) if name in table)
    return Profile(profile.machine, profile.default, rules)
