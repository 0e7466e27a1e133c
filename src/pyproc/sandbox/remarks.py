"""What an operator should know of a profile that is well formed: rules that are wider, or other, than they look.

Nothing is refused here and nothing is changed. Each function gives sentences that name the call and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyproc.sandbox.rules import ACTION_MASK, ALLOW, LOG, Condition, Rule

# What makes other walls worthless when it is allowed. An operator may have his reasons; he is told.
EXPOSING = {
    "io_uring_setup": "what goes through a ring passes by every filter",
    "ptrace": "it rewrites the calls of a sibling",
    "process_vm_writev": "it writes into a sibling", "bpf": "it runs code in the kernel",
    "userfaultfd": "it holds the kernel in a fault",
    "mount": "it changes what paths mean", "setns": "it leaves the namespaces",
    "open_by_handle_at": "it opens files past the mounts",
    "keyctl": "keys belong to the uid, not to the worker", "perf_event_open": "it watches siblings",
    "memfd_secret": "no limit counts it",
    "memfd_create": "RLIMIT_AS does not count its pages",
    "personality": "it switches address randomisation off",
}  # fmt: skip


def of_rule(names: Sequence[str], action: int, conditions: Sequence[Condition]) -> list[str]:
    """Remarks on one entry of the file, before its conditions are split into alternatives."""
    found: list[str] = []
    indexes = [c.index for c in conditions]
    if 1 < len(set(indexes)) < len(indexes):
        found.append(
            f"{names[0]}: its conditions are alternatives though they look at several arguments, because two look at the same "
            "one: write one rule for each combination"
        )
    if action in (ALLOW, LOG):
        found += [
            f'{", ".join(names)}: {c.op} compares 64 bits, an int with its high half set passes: add "width": 32'
            for c in conditions
            if c.width == 64 and c.op in ("SCMP_CMP_NE", "SCMP_CMP_GT", "SCMP_CMP_GE")
        ]
        if not conditions:
            found += [f"{n} is allowed: {EXPOSING[n]}" for n in names if n in EXPOSING]
    return found


def of_order(rules: Sequence[Rule], default: int) -> list[str]:
    """Calls whose answer depends on the order of the rules where container engines do not keep it.

    libseccomp drops a rule that equals the default, and lets an unconditional rule replace the conditional ones before it;
    behind an unconditional rule that it keeps nothing is reached, there as here.
    """
    first: dict[str, Rule] = {}
    found: dict[str, str] = {}
    for rule in rules:
        before = first.setdefault(rule.name, rule)
        if before.action != rule.action and (before.conditions or before.action == default):
            found[rule.name] = (
                f"{rule.name} has rules with different answers: the first one in the file whose conditions hold decides here, "
                "a container engine may decide otherwise; write one rule, or exclusive conditions"
            )
    return list(found.values())


def of_default(action: int) -> list[str]:
    if action & ACTION_MASK in (ALLOW, LOG):
        return ["defaultAction allows: this is a list of denials, and whatever it forgets is open"]
    return []
