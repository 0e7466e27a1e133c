"""Writes docs/reference/profiles.md from the shipped profiles: `.venv/bin/python tools/profile_page.py --write`.

Without --write the page is printed. A test fails when the file is not what this prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from pyproc.sandbox import profile, seccomp
from pyproc.sandbox.rules import ALLOW, MACHINES, Condition, Rule

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "profiles.md"
SIGNS = {"EQ": "=", "NE": "≠", "LT": "<", "LE": "≤", "GT": ">", "GE": "≥"}
HEAD = """# Profiles

Generated from the profiles by `tools/profile_page.py`; do not edit. Which system calls a worker may make, under what conditions
on their arguments, and why. `strict`: {strict} calls. `default`: {default}. Everything else is refused with EPERM; a call newer
than the table (Linux 6.18) is answered ENOSYS, as by an older kernel; a call of another architecture (i386, x32) ends the process.
A profile of your own: [write a profile](../how-to/write-a-profile.md).

`a0` to `a5` are the arguments. Compares are of the low 32 bits, where the kernel looks for an `int`, unless a pointer is meant (marked
`64`). `—`: refused. The zygote's filter and the worker's are derived from the profile and are narrower: no filter by another door, no
namespace by `clone`, signals to itself only, `fork` and the steps of confinement only as the supervisor orders them; where there is
neither `execve` nor `sendmsg`, the arena of answers (descriptor 7) is not mapped executable, nor copied to another number.

## Calls

| call | strict | default | why |
|---|---|---|---|
"""
UNOBSERVED = """
## Calls that no workload of the tests makes

Every other call is made by some workload under the profile's filter, on some CPython (`tests/unit/sandbox/test_workloads.py`). These
are not, and stay for a reason; where a call is named as its like, that one is allowed too and can do as much.

| call | in | why | like |
|---|---|---|---|
"""


def condition(c: Condition) -> str:
    """`a1 & 0xf = 1`, without the value."""
    wide = "64 " if c.width == 64 else ""
    if c.op == "SCMP_CMP_MASKED_EQ":
        return f"{wide}a{c.index} & {c.value:#x} ="
    return f"{wide}a{c.index} {SIGNS[c.op.removeprefix('SCMP_CMP_')]}"


def value(c: Condition) -> str:
    number = c.value_two if c.op == "SCMP_CMP_MASKED_EQ" else c.value
    return str(number) if number < 4096 else f"{number:#x}"


def answer(rules: list[Rule]) -> str:
    """What a profile says to one call, alternatives that differ in the last value only together."""
    if not rules:
        return "—"
    said: list[str] = []

    def alike(rule: Rule) -> tuple[Any, ...]:
        return rule.action, rule.conditions[:-1], condition(rule.conditions[-1]) if rule.conditions else ""

    for (action, before, last), group in groupby(rules, alike):
        words = [f"{condition(c)} {value(c)}" for c in before]
        if last:
            words.append(f"{last} {' or '.join(value(rule.conditions[-1]) for rule in group)}")
        verb = "yes" if action == ALLOW else seccomp.spelled(action).removeprefix("refuse ")
        said.append(" if ".join(filter(None, (verb, ", ".join(words)))))
    return "; ".join(said).replace("; yes if", "; or if")


def document(name: str) -> list[dict[str, Any]]:
    text = files("pyproc.sandbox").joinpath("profiles", f"{name}.json").read_text("ascii")
    found: list[dict[str, Any]] = json.loads(text)["syscalls"]
    return found


def rules_of(name: str) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for machine in reversed(list(MACHINES)):  # a call that only one machine has is listed too
        found |= {call: list(rules) for call, rules in _by_call(profile.shipped(name, machine=machine).rules)}
    return found


def _by_call(rules: Iterable[Rule]) -> Iterable[tuple[str, Iterable[Rule]]]:
    return groupby(sorted(rules, key=lambda rule: rule.name), lambda rule: rule.name)


def page() -> str:
    """The whole page."""
    by_profile = {name: rules_of(name) for name in profile.SHIPPED}
    calls = sorted(set().union(*by_profile.values()))
    counts = {name: sum(any(r.action == ALLOW for r in rules) for rules in found.values())
              for name, found in by_profile.items()}  # fmt: skip
    lines = []
    for call in calls:
        rules = [found.get(call, []) for found in by_profile.values()]
        why = dict.fromkeys(rule.reason for own in rules for rule in own)
        lines.append(f"| `{call}` | {' | '.join(map(answer, rules))} | {' · in default: '.join(why)} |")
    text = HEAD.format(**counts) + "\n".join(lines) + "\n" + UNOBSERVED
    told: dict[tuple[str, str, str], list[str]] = {}
    for name in profile.SHIPPED:
        for entry in document(name):
            for call, why in entry.get("unobserved", {}).items():
                told.setdefault((call, why["why"], why.get("like", "")), []).append(name)
    for (call, reason, like), names in sorted(told.items()):
        text += f"| `{call}` | {', '.join(names)} | {reason} | {f'`{like}`' if like else ''} |\n"
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
