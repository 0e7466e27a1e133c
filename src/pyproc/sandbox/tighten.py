"""Does a policy allow more than the one that it must stay within? Pure.

A tenant, a team or a change under review may tighten what an operator has set and loosen nothing. `loosened` names each key by
which it does; nothing is the permission. What cannot be shown to be narrower counts as wider: an answer may be too strict, and is
never too generous.

Of a filter, what is allowed is compared and not how it is written: each rule that lets a call through must be let through by
the base, under conditions that are as strict. That bits of an argument have a value implies what it says of the same bits; between
two conditions of other kinds only equality is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyproc.config.options import LAYERS, WANTED, Limits, Sandbox
from pyproc.sandbox.denial import limit_text, size_text
from pyproc.sandbox.paths import beneath
from pyproc.sandbox.plan import REQUIRED
from pyproc.sandbox.rules import ACTION_MASK, PERMITTING, U32, U64, Condition, Profile, Rule


class Policy(NamedTuple):
    """Of one pool; `profile`: the rules of `sandbox.profile`."""

    sandbox: Sandbox
    limits: Limits
    profile: Profile
    isolation: str = "worker"


class Loosened(NamedTuple):
    """A key below the pool, with the base's value and the wider one."""

    key: str
    base: str
    wanted: str


def loosened(base: Policy, wanted: Policy) -> list[Loosened]:
    """In what `wanted` allows more than `base`; nothing if it stays within."""
    return [*_isolation(base, wanted), *_layers(base.sandbox, wanted.sandbox), *_paths(base.sandbox, wanted.sandbox),
            *_limits(base.limits, wanted.limits), *_calls(base, wanted)]


def _isolation(base: Policy, wanted: Policy) -> list[Loosened]:
    if base.isolation == wanted.isolation or base.isolation == "worker":
        return []
    return [Loosened("isolation", base.isolation, wanted.isolation)]


def _layers(base: Sandbox, wanted: Sandbox) -> list[Loosened]:
    found = []
    for layer in LAYERS:
        usual = "require" if layer in REQUIRED else "prefer"
        one, other = base.layers.get(layer, usual), wanted.layers.get(layer, usual)
        if WANTED.index(other) > WANTED.index(one):
            found.append(Loosened(f"sandbox.layers.{layer}", one, other))
    return found


def _paths(base: Sandbox, wanted: Sandbox) -> list[Loosened]:
    known = ", ".join(base.read) or "no path"
    found = [Loosened("sandbox.read", known, path) for path in wanted.read if not any(beneath(path, other) for other in base.read)]
    if (wanted.scratch or 0) > (base.scratch or 0):
        found.append(Loosened("sandbox.scratch", size_text(base.scratch or 0), size_text(wanted.scratch or 0)))
    return found


def _limits(base: Limits, wanted: Limits) -> list[Loosened]:
    found = []
    for key in sorted(Limits.__slots__):
        one, other = getattr(base, key), getattr(wanted, key)
        if one is not None and (other is None or other > one):  # only `cpus` may be None, which is no limit
            found.append(Loosened(f"limits.{key}", _text(key, one), _text(key, other)))
    return found


def _text(key: str, value: float | None) -> str:
    if value is None:
        return "no limit"
    return str(value if key == "cpus" else limit_text(key, value))


# Filters.


def _calls(base: Policy, wanted: Policy) -> list[Loosened]:
    mine, theirs = wanted.profile, base.profile
    if (mine.rules, mine.default) == (theirs.rules, theirs.default):
        return []
    if _is_open(mine.default) and not _is_open(theirs.default):
        return [Loosened("sandbox.profile", base.sandbox.profile, f"{wanted.sandbox.profile}, which allows what it does not name")]
    wider = [rule.name for rule in mine.rules if _is_open(rule.action) and not _answers(theirs, rule, is_open=True)]
    if _is_open(mine.default):  # and so is the base's: what it names and refuses must be refused here too
        wider += [rule.name for rule in theirs.rules if not _is_open(rule.action) and not _answers(mine, rule, is_open=False)]
    return [Loosened("sandbox.profile", base.sandbox.profile, f"{wanted.sandbox.profile}, which allows more of {name}")
            for name in dict.fromkeys(wider)]


def _is_open(action: int) -> bool:
    return action & ACTION_MASK in PERMITTING


def _answers(profile: Profile, rule: Rule, *, is_open: bool) -> bool:
    """Whether `profile` lets every call through that matches `rule`, or none. The first rule that matches decides, so that those
    before it which only may match must answer alike."""
    for other in profile.rules:
        if other.number != rule.number or _excluded(rule.conditions, other.conditions):
            continue
        if _is_open(other.action) is not is_open:
            return False
        if _implied(rule.conditions, other.conditions):
            return True
    return _is_open(profile.default) is is_open


def _implied(given: Sequence[Condition], asked: Sequence[Condition]) -> bool:
    """Whether arguments that fulfil all of `given` fulfil all of `asked`."""
    return all(any(_implies(one, other) for one in given) for other in asked)


def _implies(one: Condition, other: Condition) -> bool:
    """Of two on one argument. Bits that are fixed decide about other bits, a whole value about every condition."""
    if one == other or one.index != other.index:
        return one == other
    (mask, value), (asked, wanted) = _fixed(one), _fixed(other)
    if asked:
        return not asked & ~mask and value & asked == wanted
    return not _whole(other) & ~mask and other.holds([value] * 6)


def _excluded(given: Sequence[Condition], asked: Sequence[Condition]) -> bool:
    """Whether no arguments fulfil both."""
    return any(_excludes(one, other) for one in given for other in asked if one.index == other.index)


def _excludes(one: Condition, other: Condition) -> bool:
    (mask, value), (asked, wanted) = _fixed(one), _fixed(other)
    if asked:
        return bool((value ^ wanted) & mask & asked)
    return not _whole(other) & ~mask and not other.holds([value] * 6)


def _fixed(condition: Condition) -> tuple[int, int]:
    """The bits that it fixes, as a mask, and what they are; 0 for one that fixes none."""
    if condition.op == "SCMP_CMP_EQ":
        return _whole(condition), condition.value
    return (condition.value & _whole(condition), condition.value_two) if condition.op == "SCMP_CMP_MASKED_EQ" else (0, 0)


def _whole(condition: Condition) -> int:
    return U32 if condition.width == 32 else U64
