"""A seccomp profile in the OCI runtime format, read and checked; nothing is compiled or loaded here.

    text -> fields.document() -> parse() -> Profile(default, rules in file order, unknown names, remarks)

Rules and reasons:
* The format is the one that container engines ship and runc reads, so that an operator can bring the profile he has:
  `archMap`, `includes` and `excludes` as Docker writes them, `errno` and `defaultErrno` (names) as Podman does.
  Extensions of ours: "width": 32 on an argument; "reason" (an engine's "comment" is read as one) and "unobserved",
  call -> {"why": ...} for calls that no workload of the tests makes, on a rule. An unknown key or value is an error.
* Where two conditions of one entry are on one argument, all conditions of that entry are alternatives, as in runc
  (`libcontainer/seccomp`, matchCall); else they must all hold.
* A call through a subarchitecture (i386, x32, arm) ends the process whatever the file says, and this is remarked.
* A name that this machine does not have is skipped and reported: `absent` when another machine has it (engines list the
  names of all of them), else `unknown`, which is a misspelling or newer than the tables.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pyproc.sandbox import remarks
from pyproc.sandbox.fields import document, integer, listed, refuse, require_keys, shown, text, texts
from pyproc.sandbox.rules import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    MACHINES,
    NOTIFY,
    TRACE,
    TRAP,
    U32,
    U64,
    Condition,
    Profile,
    Rule,
    foreign_names,
    syscall_table,
)

ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD, "SCMP_ACT_KILL_THREAD": KILL_THREAD, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_NOTIFY": NOTIFY, "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG, "SCMP_ACT_ALLOW": ALLOW,
}  # fmt: skip
ERRNO_MAX = 4095  # the kernel's MAX_ERRNO: a greater value is cut to it
ERRNOS = {name: number for number, name in errno.errorcode.items()} | {"EWOULDBLOCK": errno.EAGAIN, "ENOTSUP": errno.EOPNOTSUPP}
OPERATORS = frozenset("SCMP_CMP_" + o for o in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}  # what "arches" in includes and excludes is written in
SUBARCHITECTURES = {"x86_64": ("SCMP_ARCH_X86", "SCMP_ARCH_X32"), "aarch64": ("SCMP_ARCH_ARM",)}

_PROFILE_KEYS = frozenset(
    {"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags", "syscalls"}
)
_RULE_KEYS = frozenset(
    {"name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes", "reason", "unobserved"}
)
_ARG_KEYS = frozenset({"index", "value", "valueTwo", "op", "width"})
_FILTER_KEYS = frozenset({"caps", "arches", "minKernel"})


def parse(
    source: str | bytes, *, machine: str | None = None, kernel: tuple[int, int] | None = None, capabilities: Collection[str] = ()
) -> Profile:
    """Read a profile. `kernel` (major, minor) and `capabilities` (a worker has none) select rules. Raises ProfileError."""
    found = document(source)
    require_keys(found, _PROFILE_KEYS, "profile")
    machine = machine or platform.machine()
    kernel = kernel or _kernel(os.uname().release, "this machine's")
    table, notes = syscall_table(machine), _architectures(found, machine)
    if flags := texts(found, "flags", "profile"):
        notes.append(f"flags {', '.join(flags)} are not used: the loader sets its own")
    default = _action(found, ("defaultAction", "defaultErrnoRet", "defaultErrno"), "profile")
    notes += remarks.of_default(default)
    rules: list[Rule] = []
    skipped: dict[str, None] = {}
    for at, entry in enumerate(listed(found, "syscalls", "profile")):
        where = f"syscalls[{at}]"
        require_keys(entry, _RULE_KEYS, where)
        names, action = _names(entry, where), _action(entry, ("action", "errnoRet", "errno"), where)
        conditions = [_condition(a, f"{where} args[{i}]") for i, a in enumerate(listed(entry, "args", where))]
        reason = text(entry, "reason", where) or text(entry, "comment", where)
        _unobserved(entry, names, where)
        if not _applies(entry, where, machine, kernel, capabilities):
            continue
        notes += remarks.of_rule(names, action, conditions)
        skipped |= dict.fromkeys(n for n in names if n not in table)
        rules += [
            Rule(n, table[n], action, alternative, reason)
            for n in names if n in table
            for alternative in _alternatives(conditions)
        ]  # fmt: skip
    everywhere = foreign_names().union(*(syscall_table(m) for m in MACHINES))
    return Profile(
        machine, default, tuple(rules), tuple(n for n in skipped if n not in everywhere),
        tuple(n for n in skipped if n in everywhere),
        tuple(dict.fromkeys((*notes, *remarks.of_order(rules, default)))),
    )  # fmt: skip


def _kernel(version: object, where: str) -> tuple[int, int]:
    found = re.match(r"(\d{1,9})\.(\d{1,9})", version, re.ASCII) if isinstance(version, str) else None
    if found is None:
        refuse(f"{where} kernel version {shown(version)} is not MAJOR.MINOR: write it as in '5.13'")
    return int(found[1]), int(found[2])


def _architectures(found: Mapping[str, Any], machine: str) -> list[str]:
    named = texts(found, "architectures", "profile")
    foreign = [n for n in named if n in SUBARCHITECTURES[machine]]
    for at, entry in enumerate(listed(found, "archMap", "profile")):
        where = f"archMap[{at}]"
        require_keys(entry, frozenset({"architecture", "subArchitectures"}), where)
        own = texts({"architecture": [entry.get("architecture")]}, "architecture", where)
        below = texts(entry, "subArchitectures", where)
        named = [*named, *own]
        if own == [MACHINES[machine]]:
            foreign += below
    if bad := [n for n in (*named, *foreign) if not n.startswith("SCMP_ARCH_")]:
        refuse(f"profile architecture {shown(bad[0])} is unknown: write it as in {MACHINES[machine]!r}")
    if named and MACHINES[machine] not in named:
        refuse(f"profile is for {shown(', '.join(named))}, this machine is {MACHINES[machine]}: add it to architectures")
    if not foreign:
        return []
    return [f"subarchitectures {', '.join(foreign)} are not admitted: a call through one ends the process"]


def _action(entry: Mapping[str, Any], keys: tuple[str, str, str], where: str) -> int:
    """The answer of an entry: its action, with the errno that is given as a number or, as Podman does, by its name."""
    key, number_key, name_key = keys
    name = entry.get(key)
    if not isinstance(name, str) or name not in ACTIONS:
        refuse(f"{where} {key} is {shown(name)}: use one of {', '.join(ACTIONS)}")
    action = ACTIONS[name]
    spelled = text(entry, name_key, where)
    if spelled and spelled not in ERRNOS:
        refuse(f"{where} {name_key} is {shown(spelled)}: write a name of errno.h, as EPERM or ENOSYS")
    if entry.get(number_key) is None and not spelled:
        return action | (errno.EPERM if action == ERRNO else 0)
    number = integer(entry, number_key, ERRNO_MAX, where, ERRNOS.get(spelled))
    if spelled and number != ERRNOS[spelled]:
        refuse(f"{where} {number_key} is {number} and {name_key} is {spelled} ({ERRNOS[spelled]}): remove one")
    if action not in (ERRNO, TRACE):
        refuse(f"{where} {number_key} is {number} with {name}: only SCMP_ACT_ERRNO has one, remove it")
    if action == ERRNO and number == 0:
        refuse(f"{where} {number_key} is 0: a refusal would look like success, write 1 for EPERM")
    return action | number


def _names(entry: Mapping[str, Any], where: str) -> list[str]:
    names = texts(entry, "names", where)
    if entry.get("name") is not None:
        names = [*names, *texts({"name": [entry["name"]]}, "name", where)]
    if not names or len(set(names)) != len(names):
        refuse(f"{where} names are {shown(names)}: name at least one system call, and each once")
    return names


def _unobserved(entry: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    told = {} if entry.get("unobserved") is None else entry["unobserved"]
    require_keys(told, frozenset(names), f"{where} unobserved")
    for name, why in told.items():
        require_keys(why, frozenset({"why", "like"}), f"{where} unobserved {name}")
        text(why, "like", f"{where} unobserved {name}")
        if not text(why, "why", f"{where} unobserved {name}"):
            refuse(f"{where} unobserved {name} has no why: write the reason that keeps a call which no workload makes")


def _condition(entry: Any, where: str) -> Condition:
    require_keys(entry, _ARG_KEYS, where)
    op, width = entry.get("op"), integer(entry, "width", 64, where, 64)
    if not isinstance(op, str) or op not in OPERATORS:
        refuse(f"{where} op is {shown(op)}: use one of {', '.join(sorted(OPERATORS))}")
    if width not in (32, 64):
        refuse(f"{where} width is {width}: use 32 for an int argument, 64 for a pointer or a long")
    limit = U32 if width == 32 else U64
    value, two = integer(entry, "value", limit, where), integer(entry, "valueTwo", limit, where, 0)
    if two and op != "SCMP_CMP_MASKED_EQ":
        refuse(f"{where} valueTwo is {two} with {op}: only SCMP_CMP_MASKED_EQ has one, remove it")
    if two & ~value:
        refuse(f"{where} valueTwo {two:#x} has bits outside the mask {value:#x}: it can never match, correct one")
    return Condition(integer(entry, "index", 5, where), op, value, two, width)


def _alternatives(conditions: Sequence[Condition]) -> list[tuple[Condition, ...]]:
    if len({c.index for c in conditions}) == len(conditions):
        return [tuple(conditions)]
    return [(c,) for c in conditions]


def _applies(entry: Mapping[str, Any], where: str, machine: str, kernel: tuple[int, int], capabilities: Collection[str]) -> bool:
    """Docker's includes (all must hold, all capabilities held) and excludes (one is enough)."""
    verdicts: dict[str, list[bool]] = {}
    for key, quantifier in (("includes", all), ("excludes", any)):
        chosen = {} if entry.get(key) is None else entry[key]
        require_keys(chosen, _FILTER_KEYS, f"{where} {key}")
        caps, arches = texts(chosen, "caps", f"{where} {key}"), texts(chosen, "arches", f"{where} {key}")
        found = [quantifier(c in capabilities for c in caps)] if caps else []
        found += [GOARCH[machine] in arches] if arches else []
        if chosen.get("minKernel") is not None:
            found.append(kernel >= _kernel(chosen["minKernel"], f"{where} {key}"))
        verdicts[key] = found
    return all(verdicts["includes"]) and not any(verdicts["excludes"])
