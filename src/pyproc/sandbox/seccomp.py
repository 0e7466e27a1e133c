"""A profile as a classic BPF program: pure, no kernel call, no libseccomp. The boot loads the bytes.

    arch? --other--> KILL_PROCESS          the number of a call means nothing before its architecture is known
      | native
    nr >= 0x40000000 (x86_64) ----------> KILL_PROCESS    x32: the same calls by other numbers
      |
    binary search over runs of numbers with one answer --> ALLOW, ERRNO, ... or the argument rules of one call
      '-- above the newest we know ------> ERRNO ENOSYS   what libraries take for an older kernel

Rules and reasons:
* i386 (`int 0x80`) reaches a 64-bit process with another architecture value: ended, not refused, for nothing
  of ours calls so.
* A constant answer needs no argument, and then the kernel caches it per call (5.11 and newer): hot calls
  should have no arguments.
* The kernel sees arguments as 64 bits whatever the call declares. `width` 32 looks at the low half only,
  which is all that the kernel looks at for an int.
* Rejected: a chain of compares as libseccomp writes it (78 steps to futex, here about 10).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import groupby

from pyproc.sandbox.assembly import (
    AND,
    ARCH_OFFSET,
    ARGUMENTS_OFFSET,
    INSTRUCTION,
    JEQ,
    JGE,
    JGT,
    JUMP,
    LOAD,
    NUMBER_OFFSET,
    RETURN,
    Assembly,
)
from pyproc.sandbox.rules import (
    AUDIT_ARCH,
    AUDIT_ARCH_I386,
    ERRNO,
    KILL_PROCESS,
    U32,
    X32_BIT,
    Condition,
    Profile,
    Rule,
    syscall_table,
)
from pyproc.sandbox.simulate import simulate, spelled

__all__ = ["AUDIT_ARCH", "AUDIT_ARCH_I386", "INSTRUCTION", "JEQ", "JUMP", "compile_profile", "simulate", "spelled"]


def compile_profile(profile: Profile) -> bytes:
    """The program for `profile`: struct sock_filter[]. Raises ProfileError above INSTRUCTIONS_MAX."""
    code, ends = Assembly(), dict[int, str]()

    def end(action: int) -> str:
        return ends.setdefault(action, f"end {action:#x}")

    rules: dict[int, list[Rule]] = {}
    for rule in profile.rules:
        chain = rules.setdefault(rule.number, [])
        if not chain or chain[-1].conditions:  # behind an unconditional rule nothing is reached
            chain.append(rule)
    top = max(syscall_table(profile.machine).values())
    runs: list[tuple[int, str]] = []
    for number in range(top + 1):
        chain = rules.get(number, [])
        target = (
            f"call {number}"
            if chain and chain[0].conditions
            else end(chain[0].action if chain else profile.default)
        )
        if not runs or runs[-1][1] != target:
            runs.append((number, target))
    runs.append((top + 1, end(ERRNO | errno.ENOSYS)))

    code.add(LOAD, ARCH_OFFSET)
    code.add(JEQ, AUDIT_ARCH[profile.machine], None, end(KILL_PROCESS))
    code.add(LOAD, NUMBER_OFFSET)
    if profile.machine == "x86_64":
        code.add(JGE, X32_BIT, end(KILL_PROCESS))
    _search(code, runs)
    for action, label in ends.items():
        code.put(label)
        code.add(RETURN, action)
    for number, chain in sorted(rules.items()):
        if chain[0].conditions:
            code.put(f"call {number}")
            _chain(code, chain, profile.default)
    return code.link()


def _search(code: Assembly, runs: Sequence[tuple[int, str]]) -> None:
    """Binary search, a left half directly behind its node: every jump goes forward."""
    if len(runs) == 1:
        code.add(JUMP, 0, runs[0][1])
        return
    middle = len(runs) // 2
    left, right = runs[:middle], runs[middle:]
    upper = right[0][1] if len(right) == 1 else code.label()
    code.add(JGE, runs[middle][0], upper, left[0][1] if len(left) == 1 else None)
    if len(left) > 1:
        _search(code, left)
    if len(right) > 1:
        code.put(upper)
        _search(code, right)


def _switch(rule: Rule) -> tuple[object, ...]:
    """Alternatives with equal keys compare one word under one mask: it is loaded once for all of them."""
    if len(rule.conditions) == 1:
        c = rule.conditions[0]
        if c.width == 32 and c.op == "SCMP_CMP_EQ":
            return (c.index, U32, rule.action)
        if c.op == "SCMP_CMP_MASKED_EQ" and c.value <= U32:
            return (c.index, c.value, rule.action)
    return (id(rule),)


def _chain(code: Assembly, rules: Sequence[Rule], default: int) -> None:
    for _, alike in groupby(rules, _switch):
        group = list(alike)
        following = code.label()
        if len(group) > 1:
            matched, first = code.label(), group[0].conditions[0]
            code.add(LOAD, ARGUMENTS_OFFSET + 8 * first.index)
            if first.op == "SCMP_CMP_MASKED_EQ":
                code.add(AND, first.value)
            for rule in group[:-1]:
                code.add(JEQ, _datum(rule.conditions[0]), matched)
            code.add(JEQ, _datum(group[-1].conditions[0]), None, following)
            code.put(matched)
        for condition in group[0].conditions if len(group) == 1 else ():
            _test(code, condition, following)
        code.add(RETURN, group[0].action)
        code.put(following)
    if rules[-1].conditions:
        code.add(RETURN, default)


def _datum(c: Condition) -> int:
    return c.value_two if c.op == "SCMP_CMP_MASKED_EQ" else c.value


def _test(code: Assembly, c: Condition, fail: str) -> None:
    """Fall through where the condition holds, else go to `fail`."""
    low, high = ARGUMENTS_OFFSET + 8 * c.index, ARGUMENTS_OFFSET + 8 * c.index + 4
    wide, (upper, lower), passed = c.width == 64, divmod(c.value, 2**32), code.label()
    match c.op.removeprefix("SCMP_CMP_"):
        case "MASKED_EQ":
            for offset, mask, want in ((high, upper, c.value_two >> 32), (low, lower, c.value_two & U32)):
                if mask or offset == low:
                    code.add(LOAD, offset)
                    code.add(AND, mask)
                    code.add(JEQ, want, None, fail)
        case "EQ":
            for offset, want in ((high, upper), (low, lower)) if wide else ((low, lower),):
                code.add(LOAD, offset)
                code.add(JEQ, want, None, fail)
        case "NE":
            if wide:
                code.add(LOAD, high)
                code.add(JEQ, upper, None, passed)
            code.add(LOAD, low)
            code.add(JEQ, lower, fail)
        case order:
            greater = order in ("GT", "GE")
            if wide:
                code.add(LOAD, high)
                code.add(JGT, upper, *((passed, None) if greater else (fail, None)))
                code.add(JEQ, upper, None, fail if greater else passed)
            code.add(LOAD, low)
            op, yes = {"GT": (JGT, True), "GE": (JGE, True), "LT": (JGE, False), "LE": (JGT, False)}[order]
            code.add(op, lower, *((None, fail) if yes else (fail, None)))
    code.put(passed)
