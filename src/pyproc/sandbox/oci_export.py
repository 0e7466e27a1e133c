"""A profile written as OCI seccomp JSON that any container engine reads: no key of ours is in it.

    Profile ──▶ to_oci() ──▶ text;  parse(text) decides every call as the profile does

Rules and reasons:
* The format compares 64 bits. A compare of 32 bits is written as masks, which say exactly the same: `x == 5` as
  `x & 0xffffffff == 5`, `x != 5` as "one of its 32 bits differs", an order as the prefixes of the numbers that are meant.
  Leaving our "width" in would be read as a wider compare by an engine that skips unknown keys.
* All conditions of an entry are alternatives there as soon as two look at one argument. So a rule with two conditions on
  one argument (derived filters have them) gets one merged mask, and rules that are single alternatives share an entry.
* What a file cannot say: that numbers newer than the table are answered ENOSYS, and what is answered through other
  architectures. An engine adds its own answer to both.
* The order of rules is kept. Engines do not promise to keep it: see remarks.of_order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby, product
from typing import Any

from pyproc.sandbox.oci import ACTIONS
from pyproc.sandbox.rules import ACTION_MASK, ERRNO, MACHINES, TRACE, U32, U64, Condition, Profile, ProfileError, Rule

_NAMES = {value: name for name, value in reversed(ACTIONS.items())} | {0: "SCMP_ACT_KILL_THREAD"}
_MASKED = "SCMP_CMP_MASKED_EQ"


def to_oci(profile: Profile) -> str:
    """The JSON text for `profile`, for its machine. Raises ProfileError for conditions that the format cannot say."""
    calls: dict[str, list[Rule]] = {}
    for rule in profile.rules:
        calls.setdefault(rule.name, []).append(rule)
    entries: list[dict[str, Any]] = []
    alone: dict[str, dict[str, Any]] = {}  # entries that are all there is for each of their calls: others may join
    for name, rules in calls.items():
        own = [{"names": [name], **entry} for entry in _entries(rules)]
        key = json.dumps({**own[0], "names": []}) if len(own) == 1 else ""
        if key in alone:
            alone[key]["names"].append(name)
            continue
        entries += own
        if key:
            alone[key] = own[0]
    head = _answer(profile.default, "defaultAction", "defaultErrnoRet")
    return json.dumps({**head, "architectures": [MACHINES[profile.machine]], "syscalls": entries}, indent=1) + "\n"


def _answer(action: int, key: str, number_key: str) -> dict[str, Any]:
    if action & ACTION_MASK not in (ERRNO, TRACE):
        return {key: _NAMES[action]}
    return {key: _NAMES[action & ACTION_MASK], number_key: action & 0xFFFF}


def _entries(rules: Iterable[Rule]) -> Iterable[dict[str, Any]]:
    """The entries of one call, in the order of its rules."""
    alternatives = [(rule, conditions) for rule in rules for conditions in _plain(rule)]

    def together(item: tuple[Rule, tuple[Condition, ...]]) -> tuple[object, ...]:
        rule, conditions = item
        place = conditions[0].index if len(conditions) == 1 else id(conditions)
        return rule.action, rule.reason, place

    for _, group in groupby(alternatives, together):
        members = list(group)
        rule = members[0][0]
        args = [_argument(c) for _, conditions in members for c in conditions]
        comment = {"comment": rule.reason} if rule.reason else {}
        yield {**comment, **_answer(rule.action, "action", "errnoRet"), **({"args": args} if args else {})}


def _argument(c: Condition) -> dict[str, Any]:
    two = {"valueTwo": c.value_two} if c.op == _MASKED else {}
    return {"index": c.index, "op": c.op, "value": c.value, **two}


def _plain(rule: Rule) -> list[tuple[Condition, ...]]:
    """The conjunctions, of 64-bit conditions with at most one for each argument, of which one must hold."""
    found: list[tuple[Condition, ...]] = []
    for chosen in product(*(_wide(c) for c in rule.conditions)):
        merged: dict[int, Condition] = {}
        for c in chosen:
            met = merged.get(c.index)
            both = c if met is None else _both(met, c, rule.name)
            if both is None:
                break
            merged[c.index] = both
        else:
            found.append(tuple(c for c in merged.values() if (c.op, c.value) != (_MASKED, 0)))
    return found


def _both(a: Condition, b: Condition, name: str) -> Condition | None:
    """One condition for two on the same argument; None where they exclude each other."""
    if a == b:
        return a
    if {a.op, b.op} <= {_MASKED, "SCMP_CMP_EQ"}:
        (mask, want), (mask_b, want_b) = ((c.value, c.value_two) if c.op == _MASKED else (U64, c.value) for c in (a, b))
        if (want ^ want_b) & mask & mask_b:
            return None
        return Condition(a.index, _MASKED, mask | mask_b, want | want_b)
    raise ProfileError(f"{name} has {a.op} and {b.op} on argument {a.index}: the OCI format has no word for both, write one mask")


def _wide(c: Condition) -> list[Condition]:
    """64-bit conditions of which exactly one or more hold where `c` does; [] where it never holds."""
    if c.width == 64 or c.op == _MASKED:
        return [Condition(c.index, c.op, c.value, c.value_two)]
    value, bits = c.value, range(31, -1, -1)
    match c.op.removeprefix("SCMP_CMP_"):
        case "EQ":
            masks = [(U32, value)]
        case "NE":
            masks = [(1 << b, ~value & 1 << b) for b in bits]
        case "LT":
            masks = _below(value)
        case "LE":
            masks = _below(value + 1)
        case order:
            # greater is below when every bit is turned over: mask and number turn with it
            turned = _below((U32 - value) + (order == "GE"))
            masks = [(mask, mask & ~want) for mask, want in turned]
    return [Condition(c.index, _MASKED, mask, want) for mask, want in masks]


def _below(limit: int) -> list[tuple[int, int]]:
    """(mask, wanted) for each prefix of the 32-bit numbers below `limit`, which is at most 2^32."""
    return [(U32 >> b << b & U32, limit >> b + 1 << b + 1) for b in range(32, -1, -1) if limit >> b & 1]
