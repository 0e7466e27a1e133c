"""The vocabulary of filters: answers, machines, conditions, rules, profiles. Values only: nothing is read or compiled here.

    oci.parse (a file) ──▶ Profile ──▶ seccomp.compile_profile ──▶ bytes for the kernel
                              │  └───▶ oci_export.to_oci (a file again)
                              └──────▶ decide(): the same answer, one call at a time, without a program

Rules and reasons:
* The first rule of a call, in the order of the file, whose conditions all hold decides; no rule holds: the default.
  Rejected: libseccomp's order, where the more specific rule wins, as nobody can see it in the file.
* Arguments are unsigned 64-bit registers. `width` 32 looks at the low half only, which is all that the kernel looks at
  for an `int`: a 64-bit compare on an int is passed by junk in the high half.
* MASKED_EQ is `argument & value == valueTwo`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

# Return values of a filter, linux/seccomp.h. The low 16 bits carry an errno for ERRNO.
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x0, 0x30000, 0x50000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTION_MASK = 0xFFFF0000
PERMITTING = frozenset((ALLOW, LOG, NOTIFY))  # answers by which a call may take place
U32, U64 = 2**32 - 1, 2**64 - 1

MACHINES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h: both are 64 bit and little endian
AUDIT_ARCH_I386 = 0x40000003
X32_BIT = 0x40000000  # __X32_SYSCALL_BIT of x86_64


class ProfileError(ValueError):
    """A profile that cannot be used as it is written: the text names the place, the value and the remedy."""


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(files(__package__).joinpath("syscalls.json").read_text("ascii"))
    return tables


def syscall_table(machine: str) -> Mapping[str, int]:
    """Name to number for `machine`, as platform.machine() calls it."""
    if machine not in MACHINES:
        raise ProfileError(f"machine {machine!r} has no system call table: use one of {', '.join(MACHINES)}")
    table: Mapping[str, int] = _tables()[machine]
    return table


@cache
def foreign_names() -> frozenset[str]:
    """System calls that Linux has on other machines only. A profile names them for these, not by mistake."""
    return frozenset(_tables()["foreign"])


@dataclass(frozen=True, slots=True)
class Condition:
    """`argument[index] op value`, unsigned, on the low `width` bits."""

    index: int
    op: str
    value: int
    value_two: int = 0
    width: int = 64

    def holds(self, args: Sequence[int]) -> bool:
        seen = args[self.index] & (U32 if self.width == 32 else U64)
        match self.op.removeprefix("SCMP_CMP_"):
            case "EQ":
                return seen == self.value
            case "NE":
                return seen != self.value
            case "LT":
                return seen < self.value
            case "LE":
                return seen <= self.value
            case "GT":
                return seen > self.value
            case "GE":
                return seen >= self.value
        return seen & self.value == self.value_two


@dataclass(frozen=True, slots=True)
class Rule:
    """One system call, and all the conditions that must hold for `action`."""

    name: str
    number: int
    action: int
    conditions: tuple[Condition, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile for one machine. `unknown` (names of no machine), `absent` (of another) and `notes` are for the operator."""

    machine: str
    default: int
    rules: tuple[Rule, ...]
    unknown: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def decide(self, name: str, args: Sequence[int] = ()) -> int:
        """What this profile answers to a call of `name`; arguments that are not given are 0."""
        number, six = syscall_table(self.machine)[name], (*args, 0, 0, 0, 0, 0, 0)
        for rule in self.rules:
            if rule.number == number and all(c.holds(six) for c in rule.conditions):
                return rule.action
        return self.default

    def permits(self, name: str, args: Sequence[int] = ()) -> bool:
        return self.decide(name, args) & ACTION_MASK in PERMITTING

    def remarks(self) -> tuple[str, ...]:
        """All that an operator should read before he uses this profile, a sentence each; empty for a clean one."""
        unknown = [f"{n} is no system call of any machine known here: the rule has no effect, correct the name" for n in self.unknown]
        return (*unknown, *self.notes)
