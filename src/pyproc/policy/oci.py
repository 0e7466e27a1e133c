"""The profile of a worker as OCI seccomp JSON. Pure.

JSON has no comments and a profile's keys are fixed, so the head stands in the "comment" of a rule that allows nothing new: the first
of the file, on a call that the file allows anyway without condition.
"""

from __future__ import annotations

import json

from pyproc.policy import head
from pyproc.policy.subject import Policy
from pyproc.sandbox.oci_export import to_oci


def render(policy: Policy) -> str:
    """The text, with its head; it decides every call as the profile does."""
    return with_head(policy, to_oci(policy.source), "OCI seccomp profile of a worker")


def with_head(policy: Policy, text: str, title: str) -> str:
    """`text`, an OCI profile, with the head in the comment of its first unconditional allowance, or of its first rule."""
    document = json.loads(text)
    rules = document["syscalls"]
    plain = (rule for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule)
    first = next(plain, rules[0] if rules else None)
    if first is not None:
        told = ". ".join(head.lines(policy, title, head.NOT_ENFORCED + " here: the engine enforces it"))
        first["comment"] = f"{told}. {first.get('comment', '')}".strip()
    return json.dumps(document, indent=1) + "\n"
