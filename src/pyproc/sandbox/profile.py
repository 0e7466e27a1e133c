"""A seccomp profile in the OCI runtime format, read and checked; nothing is compiled or loaded here.

    text -> parse() -> Profile(default, rules in file order, ...) -> seccomp.compile_profile()

Rules and reasons:
* The format is the one that Docker and runc read, so that an operator can bring the profile he has.
  Extensions: "width": 32 on an argument, "reason" on a rule. An unknown key or value is an error, not a
  shrug: a misspelt "args" allows everything.
* The first rule of a call whose conditions hold decides. Conditions on different arguments are a conjunction.
  Where two are on one argument, all conditions of that rule are alternatives, as in runc
  (`libcontainer/seccomp`, matchCall).
* MASKED_EQ is `argument & value == valueTwo`.
* A 64-bit NE, GT or GE on an `int` argument is passed by junk in the high half, which the kernel then ignores
  (measured with Docker's profile: `socket(40 | 1 << 32, ...)` gave an AF_VSOCK socket). Such a compare is
  kept as it is written, and noted.
* A name that this machine does not have is skipped and reported: `absent` when another machine of ours has
  it, else `unknown`.
* Rejected: libseccomp at run time (a dependency, slow to load) and its "most specific rule wins" order (not
  readable in the file).
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn

# Return values of a filter, linux/seccomp.h. The low 16 bits carry an errno for ERRNO.
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x0, 0x30000, 0x50000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTION_MASK = 0xFFFF0000
ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD, "SCMP_ACT_KILL_THREAD": KILL_THREAD, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_NOTIFY": NOTIFY, "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG, "SCMP_ACT_ALLOW": ALLOW,
}  # fmt: skip
ERRNO_MAX = 4095  # the kernel's MAX_ERRNO: a greater value is cut to it
U32, U64 = 2**32 - 1, 2**64 - 1
OPERATORS = frozenset("SCMP_CMP_" + o for o in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
MACHINES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}  # what "arches" in includes and excludes is written in

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

_PROFILE_KEYS = frozenset(
    {"defaultAction", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls"}
)
_RULE_KEYS = frozenset(
    {"name", "names", "action", "errnoRet", "args", "comment", "includes", "excludes", "reason"}
)
_ARG_KEYS = frozenset({"index", "value", "valueTwo", "op", "width"})
_FILTER_KEYS = frozenset({"caps", "arches", "minKernel"})


class ProfileError(ValueError):
    """A profile that cannot be used as it is written: the text names the value and the remedy."""


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
    """A profile for one machine. `unknown`, `absent` and `notes` are for the operator's eyes."""

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
        return self.decide(name, args) & ACTION_MASK in (ALLOW, LOG, NOTIFY)


def _refuse(text: str, cause: BaseException | None = None) -> NoReturn:
    raise ProfileError(text) from cause


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(files(__package__).joinpath("syscalls.json").read_text("ascii"))
    return tables


def syscall_table(machine: str) -> Mapping[str, int]:
    """Name to number for `machine`, as platform.machine() calls it."""
    if machine not in MACHINES:
        _refuse(f"machine {machine!r} has no system call table: use one of {', '.join(MACHINES)}")
    table: Mapping[str, int] = _tables()[machine]
    return table


def shipped(name: str, *, machine: str | None = None) -> Profile:
    """The profile `strict` or `default` that comes with this package."""
    if name not in ("strict", "default"):
        _refuse(f"profile {name!r} is not shipped: use strict, default or a file in OCI seccomp format")
    return parse(files(__package__).joinpath("profiles", f"{name}.json").read_text("ascii"), machine=machine)


def parse(
    text: str | bytes,
    *,
    machine: str | None = None,
    kernel: tuple[int, int] | None = None,
    capabilities: Collection[str] = (),
) -> Profile:
    """Read a profile. `kernel` (major, minor) and `capabilities` (a worker has none) select rules."""
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as bad:
        _refuse(f"profile is not JSON ({bad}): write it in OCI seccomp format", bad)
    _keys(document, _PROFILE_KEYS, "profile")
    machine = machine or platform.machine()
    kernel = kernel or _kernel(os.uname().release)
    table, notes = syscall_table(machine), _architectures(document, machine)
    if document.get("flags"):
        notes.append(f"flags {document['flags']} are not used: the loader sets its own")
    default = _action(document, "defaultAction", "defaultErrnoRet", "profile")
    if default in (ALLOW, LOG):
        notes.append("defaultAction allows: this is a list of denials, and whatever it forgets is open")
    rules: list[Rule] = []
    skipped: dict[str, None] = {}
    for at, entry in enumerate(_list(document, "syscalls", "profile")):
        where = f"syscalls[{at}]"
        _keys(entry, _RULE_KEYS, where)
        names, action = _names(entry, where), _action(entry, "action", "errnoRet", where)
        conditions = [_condition(a, f"{where} {names[0]}") for a in _list(entry, "args", where)]
        reason = entry.get("reason", "")
        if not isinstance(reason, str):
            _refuse(f"{where} reason is {reason!r}: write a text")
        if not _applies(entry, where, machine, kernel, capabilities):
            continue
        alternatives = _alternatives(conditions)
        if len(alternatives) > 1 and len({c.index for c in conditions}) > 1:
            notes.append(
                f"{names[0]}: its conditions are alternatives though they look at several arguments, because "
                "two look at the same one: write one rule for each combination"
            )
        notes += _loose(names, action, conditions)
        if action in (ALLOW, LOG) and not conditions:
            notes += [f"{n} is allowed: {EXPOSING[n]}" for n in names if n in EXPOSING]
        skipped |= dict.fromkeys(n for n in names if n not in table)
        rules += [Rule(n, table[n], action, alt, reason) for n in names if n in table for alt in alternatives]
    everywhere = set().union(*(syscall_table(m) for m in MACHINES))
    unknown = tuple(n for n in skipped if n not in everywhere)
    return Profile(
        machine, default, tuple(rules), unknown, tuple(n for n in skipped if n in everywhere), tuple(notes)
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse(f"profile repeats a key among {[k for k, _ in pairs]}: write each once")
    return found


def _keys(value: object, known: frozenset[str], where: str) -> None:
    if not isinstance(value, dict):
        _refuse(f"{where} is {value!r}: write an object with some of {', '.join(sorted(known))}")
    if surplus := sorted(set(value) - known):
        _refuse(f"{where} has unknown key {surplus[0]!r}: known are {', '.join(sorted(known))}")


def _list(entry: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = entry.get(key)
    if value is not None and not isinstance(value, list):
        _refuse(f"{where} {key} is {value!r}: write a list")
    return value or []


def _texts(entry: Mapping[str, Any], key: str, where: str) -> list[str]:
    values = _list(entry, key, where)
    if bad := [v for v in values if not isinstance(v, str) or not v]:
        _refuse(f"{where} {key} holds {bad[0]!r}: write names")
    return values


def _integer(entry: Mapping[str, Any], key: str, limit: int, where: str, default: int | None = None) -> int:
    value = entry.get(key, default)
    if type(value) is not int or not 0 <= value <= limit:
        _refuse(f"{where} {key} is {value!r}: write an integer from 0 to {limit}")
    return value


def _kernel(text: object) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text) if isinstance(text, str) else None
    if found is None:
        _refuse(f"kernel version {text!r} is not MAJOR.MINOR: write it as in '5.13'")
    return int(found[1]), int(found[2])


def _architectures(document: Mapping[str, Any], machine: str) -> list[str]:
    named, notes = _texts(document, "architectures", "profile"), []
    for at, entry in enumerate(_list(document, "archMap", "profile")):
        _keys(entry, frozenset({"architecture", "subArchitectures"}), f"archMap[{at}]")
        named = [
            *named,
            *_texts({"architecture": [entry.get("architecture")]}, "architecture", f"archMap[{at}]"),
        ]
        if entry["architecture"] == MACHINES[machine] and (
            subs := _texts(entry, "subArchitectures", f"archMap[{at}]")
        ):
            notes.append(
                f"subArchitectures {', '.join(subs)} are not admitted: a call through one ends the process"
            )
    if bad := [n for n in named if not n.startswith("SCMP_ARCH_")]:
        _refuse(f"architecture {bad[0]!r} is unknown: write it as in {MACHINES[machine]!r}")
    if named and MACHINES[machine] not in named:
        _refuse(
            f"profile is for {', '.join(named)}, this machine is {MACHINES[machine]}: add it to architectures"
        )
    return notes


def _action(entry: Mapping[str, Any], key: str, errno_key: str, where: str) -> int:
    name = entry.get(key)
    if not isinstance(name, str) or name not in ACTIONS:
        _refuse(f"{where} {key} is {name!r}: use one of {', '.join(ACTIONS)}")
    action = ACTIONS[name]
    if entry.get(errno_key) is None:
        return action | (errno.EPERM if action == ERRNO else 0)
    number = _integer(entry, errno_key, ERRNO_MAX, where)
    if action not in (ERRNO, TRACE):
        _refuse(f"{where} {errno_key} is {number} with {name}: only SCMP_ACT_ERRNO has one, remove it")
    if action == ERRNO and number == 0:
        _refuse(f"{where} {errno_key} is 0: a refusal would look like success, write 1 for EPERM")
    return action | number


def _names(entry: Mapping[str, Any], where: str) -> list[str]:
    names = _texts(entry, "names", where)
    if "name" in entry:
        names = [*names, *_texts({"name": [entry["name"]]}, "name", where)]
    if not names or len(set(names)) != len(names):
        _refuse(f"{where} names are {names!r}: name at least one system call, and each once")
    return names


def _condition(entry: Any, where: str) -> Condition:
    _keys(entry, _ARG_KEYS, f"{where} argument")
    op, width = entry.get("op"), _integer(entry, "width", 64, where, 64)
    if op not in OPERATORS:
        _refuse(f"{where} op is {op!r}: use one of {', '.join(sorted(OPERATORS))}")
    if width not in (32, 64):
        _refuse(f"{where} width is {width}: use 32 for an int argument, 64 for a pointer or a long")
    limit = U32 if width == 32 else U64
    value, two = _integer(entry, "value", limit, where), _integer(entry, "valueTwo", limit, where, 0)
    if two and op != "SCMP_CMP_MASKED_EQ":
        _refuse(f"{where} valueTwo is {two} with {op}: only SCMP_CMP_MASKED_EQ has one, remove it")
    if two & ~value:
        _refuse(
            f"{where} valueTwo {two:#x} has bits outside the mask {value:#x}: it can never match, correct one"
        )
    return Condition(_integer(entry, "index", 5, where), op, value, two, width)


def _alternatives(conditions: Sequence[Condition]) -> list[tuple[Condition, ...]]:
    if len({c.index for c in conditions}) == len(conditions):
        return [tuple(conditions)]
    return [(c,) for c in conditions]


def _loose(names: Sequence[str], action: int, conditions: Iterable[Condition]) -> list[str]:
    return [
        f'{", ".join(names)}: {c.op} compares 64 bits, an int with its high half set passes: add "width": 32'
        for c in conditions
        if action in (ALLOW, LOG) and c.width == 64 and c.op in ("SCMP_CMP_NE", "SCMP_CMP_GT", "SCMP_CMP_GE")
    ]


def _applies(
    entry: Mapping[str, Any], where: str, machine: str, kernel: tuple[int, int], capabilities: Collection[str]
) -> bool:
    """Docker's includes (all must hold, all capabilities held) and excludes (one is enough)."""
    verdicts: dict[str, list[bool]] = {}
    for key, quantifier in (("includes", all), ("excludes", any)):
        chosen = entry.get(key) or {}
        _keys(chosen, _FILTER_KEYS, f"{where} {key}")
        caps, arches = _texts(chosen, "caps", where), _texts(chosen, "arches", where)
        found = [quantifier(c in capabilities for c in caps)] if caps else []
        found += [GOARCH[machine] in arches] if arches else []
        found += [kernel >= _kernel(chosen["minKernel"])] if chosen.get("minKernel") else []
        verdicts[key] = found
    return all(verdicts["includes"]) and not any(verdicts["excludes"])


# What CPython calls between the loading of the filter and an answered call, with arguments as it gives them.
# Refusing one of the first group alone made the start fail (3.11 to 3.13, glibc 2.36). Without the second a
# worker answers but does not last: memory, threads, signals, exit, and `fstat` where the C library does not
# write it as `newfstatat`.
NEEDED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("brk", ()), ("mmap", (0, 4096, 3, 0x22, U64, 0)), ("mprotect", ()), ("openat", (-100, 0, 0x80000)),
    ("close", ()),
    ("read", ()), ("write", ()), ("newfstatat", ()), ("getdents64", ()), ("getsockname", ()),
    ("getsockopt", (3, 1, 3)),
    ("recvfrom", ()), ("sendto", (3, 0, 0, 0x4000)),
    ("munmap", ()), ("fstat", ()), ("lseek", ()), ("getrandom", ()), ("futex", (0, 0x81, 1)),
    ("futex", (0, 0x189, 0)),
    ("rt_sigaction", ()), ("rt_sigreturn", ()), ("exit_group", ()),
)  # fmt: skip


def missing(profile: Profile) -> list[str]:
    """The calls that CPython needs to start and to answer, and that `profile` does not allow."""
    table = syscall_table(profile.machine)
    return sorted({n for n, args in NEEDED if n in table and not profile.permits(n, args)})


def require_start(profile: Profile) -> None:
    """Refuse a profile under which no worker could start, with the names of what it lacks."""
    if lacking := missing(profile):
        _refuse(
            f"profile cannot start CPython, it lacks {', '.join(lacking)}: allow them, or copy strict.json"
        )
