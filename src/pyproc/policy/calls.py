"""The rules of a filter grouped for reading: calls that are answered alike, for one reason, under one condition. Pure.

The order of the rules of each call is kept, as the first one that holds decides. Rules of one call that differ only in the value
that one argument is compared with are one group: "is one of".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from pyproc.sandbox.derive import PID_PLACEHOLDER
from pyproc.sandbox.rules import Condition, Profile, Rule
from pyproc.sandbox.seccomp import spelled

SIGNS = {"EQ": "is", "NE": "is not", "LT": "is below", "LE": "is at most", "GT": "is above", "GE": "is at least"}
OWN_PID = "the worker's own pid"


@dataclass(frozen=True)
class Group:
    """`answer` in words; `alternatives`: conjunctions of which one must hold, () where there is no condition."""

    answer: str
    reason: str
    alternatives: tuple[tuple[Condition, ...], ...]
    names: tuple[str, ...]

    @property
    def condition(self) -> str:
        """The alternatives in words, "" for none."""
        return in_words(self.alternatives)


def grouped(profile: Profile) -> list[Group]:
    """Every rule of `profile`, calls in the order of their first rule."""
    by_name: dict[str, list[Rule]] = {}
    for rule in profile.rules:
        chain = by_name.setdefault(rule.name, [])
        if not chain or chain[-1].conditions:  # behind an unconditional rule nothing is reached
            chain.append(rule)
    found: dict[tuple[str, str, tuple[tuple[Condition, ...], ...]], list[str]] = {}
    for name, chain in by_name.items():
        for (action, reason), alike in groupby(chain, lambda rule: (rule.action, rule.reason)):
            alternatives = tuple(rule.conditions for rule in alike)
            key = spelled(action), reason, () if () in alternatives else alternatives
            found.setdefault(key, []).append(name)
    return [Group(*key, tuple(names)) for key, names in found.items()]


def in_words(alternatives: Iterable[tuple[Condition, ...]]) -> str:
    """ "argument 0 is 1", "argument 2 is one of 0, 1", "argument 3 & 0x40000 is 0"; several joined by "or"."""
    told: dict[tuple[str, str], list[str]] = {}
    for conjunction in alternatives:
        words = [_words(c) for c in conjunction]
        if len(words) == 1:
            told.setdefault(words[0][:2], []).append(words[0][2])
        elif words:
            told.setdefault((" and ".join(" ".join(word) for word in words), ""), []).append("")
    return " or ".join(f"{subject} {sign} one of {', '.join(values)}" if len(values) > 1 else f"{subject} {sign} {values[0]}".strip()
                       for (subject, sign), values in told.items())


def _words(c: Condition) -> tuple[str, str, str]:
    subject = f"argument {c.index}" + ("" if c.width == 32 else " (64 bit)")
    if c.op == "SCMP_CMP_MASKED_EQ":
        return f"{subject} & {c.value:#x}", "is", number(c.value_two)
    return subject, SIGNS[c.op.removeprefix("SCMP_CMP_")], OWN_PID if c.value == PID_PLACEHOLDER else number(c.value)


def number(value: int) -> str:
    """Small numbers as people write them, flags and masks in base 16."""
    return str(value) if value < 1024 else f"{value:#x}"
