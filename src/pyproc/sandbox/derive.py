"""The two filters that are loaded, derived from one profile. Pure: profile in, profile or program out.

    boot (pid 1)   zygote_filter ----> in force before the user's import, inherited by every worker
    fork, setsid, unshare, landlock, capset
    worker         worker_filter ----> the second line: the profile itself, with the worker's own pid

Rules and reasons:
* Filters stack and the strictest answer wins: KILL, ERRNO, NOTIFY, ALLOW in that order. So the first filter
  is the wall, and must allow all that a worker may; the second one takes away the steps that only a worker in
  the making needs.
* Import-time code is hostile. If it could load a filter of its own, that filter could answer "success" to
  every later confinement and the workers would look confined (`sandbox.md`, section 10). So those steps are
  asked of the supervisor, by SECCOMP_RET_USER_NOTIF, who knows when it ordered one. He judges register
  arguments only: memory changes under his eyes.
* Whatever the profile says: no filter by prctl, no namespace or foreign child by clone, no clone3 (its flags
  are in memory).
* In the second filter an allowed fork stays allowed even in a profile without fork, so that the first
  filter's question reaches the supervisor, who refuses and counts it.
* The arena of answers is memory that is written and could be mapped executable, which MDWE does not see. Where a profile lets a
  descriptor neither be sent nor given to another program, its number is the only way to it: mapping that number executable and
  copying it are refused. It is mapped by ctypes, as `mmap.mmap` copies its descriptor.
* Rejected: one filter with the pid in it (a zygote's must be in force before there is a worker); a list of
  the profile's own rules for zygotes (two files to keep in step).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from pyproc.sandbox.needs import require_start
from pyproc.sandbox.rules import (
    ACTION_MASK,
    ALLOW,
    ERRNO,
    LOG,
    NOTIFY,
    TRACE,
    U32,
    Condition,
    Profile,
    ProfileError,
    Rule,
    syscall_table,
)
from pyproc.sandbox.seccomp import INSTRUCTION, JEQ, compile_profile
from pyproc_wire.places import ARENA_ANSWERS

CLONE_PARENT, CLONE_THREAD = 0x8000, 0x10000
CLONE_NAMESPACES = (
    0x7E020000  # NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET; NEWTIME is not reachable by clone(2)
)
CLONE_NEWUSER = 0x10000000
# CHILD_SETTID, CHILD_CLEARTID and SIGCHLD: what fork(3) of glibc gives, exactly.
FORK_FLAGS = 0x01200011
SECCOMP_SET_MODE_FILTER = 1
SIGKILL = 9
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 22, 24, 28
PROT_EXEC = 4
F_DUPFDS = (0, 1030)  # F_DUPFD, F_DUPFD_CLOEXEC
RECEIVE_FLAGS = 0x40004162  # PEEK TRUNC DONTWAIT WAITALL NOSIGNAL CMSG_CLOEXEC: not OOB, not ERRQUEUE

# Asked of the supervisor in the first filter. What he must look at, in data.args, is beside each.
NOTIFIED: Final = (
    "clone",  # args[0] & U32 == FORK_FLAGS, and a fork was ordered of this process; else refuse and count
    "unshare",  # args[0] == CLONE_NEWUSER (the filter saw to it): once, of a worker in the making
    "seccomp",  # SET_MODE_FILTER without flags (the filter saw to it): once, of a worker in the making
    "setsid",  # once, of a worker in the making
    "tgkill",  # args[0] & U32 == the caller's pid in its own pid namespace
)  # fmt: skip

# Whatever the profile says of these, only the rules below allow them. No setpgid: a group is killed as one. No ruleset is
# made or changed inside: the supervisor lends his, which import-time code can then only enter, not soften.
CLOSED: Final = (*(n for n in NOTIFIED if n != "clone"), "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
                 "capset", "setpgid")

PID_MAX = 2**22  # the kernel's PID_MAX_LIMIT on 64 bits
PID_PLACEHOLDER = 0x7F1D_A57E  # above PID_MAX, and no flag, mask or command of any call


def zygote_rules(profile: Profile) -> Profile:
    """The first filter, loaded before the user's import, as a profile (to show and to explain)."""
    require_start(profile)
    own = [
        *_rules(profile, "prctl", ALLOW, "a worker ends with its zygote; no other signal, and none, can be chosen",
                _is(0, PR_SET_PDEATHSIG), _is(1, SIGKILL)),
        *_forced(profile),
        *_rules(profile, "prctl", ALLOW, "drops what is left of the capabilities", _is(0, PR_CAPBSET_DROP)),
        *_rules(profile, "prctl", ALLOW, "locks the rules of exec and setuid", _is(0, PR_SET_SECUREBITS)),
        *_rules(profile, "capset", ALLOW, "without capabilities it can only give away"),
        *_rules(profile, "unshare", NOTIFY, "a user namespace for each worker counts its processes alone",
                Condition(0, "SCMP_CMP_EQ", CLONE_NEWUSER)),
        *_rules(profile, "seccomp", NOTIFY, "a worker's second filter, when the supervisor ordered it",
                _is(0, SECCOMP_SET_MODE_FILTER), _is(1, 0)),
        *_rules(profile, "setsid", NOTIFY, "a worker leads its group, so that one signal ends all of it"),
        *_rules(profile, "landlock_restrict_self", ALLOW, "a worker's own Landlock domain: it only takes away", _is(1, 0)),
    ]  # fmt: skip
    if not profile.permits("recvmsg", (3, 0, 0x40000000)):
        own += _rules(
            profile,
            "recvmsg",
            ALLOW,
            "the zygote receives each worker's channel",
            _masked(2, U32 ^ RECEIVE_FLAGS),
        )
    if not profile.permits("wait4"):
        own += _rules(profile, "wait4", ALLOW, "the zygote lets go of a dead worker, once its exit status was read")
    if profile.permits("tgkill"):
        own += _rules(profile, "tgkill", NOTIFY, "a signal to oneself: the supervisor compares the pid")
    own += _fork(profile, NOTIFY, "the supervisor decides which fork it ordered")
    return _over(profile, own)


def zygote_filter(profile: Profile) -> bytes:
    """The program to load in pid 1, with a listener, before the user's import."""
    return compile_profile(zygote_rules(profile))


def worker_rules(profile: Profile) -> Profile:
    """The second filter, as a profile; tgkill is pinned to PID_PLACEHOLDER."""
    require_start(profile)
    own = [*_forced(profile), *_fork(profile, ALLOW, "the first filter asks the supervisor, who counts it")]
    if profile.permits("tgkill"):
        own += _rules(profile, "tgkill", ALLOW, "a signal to oneself", _is(0, PID_PLACEHOLDER))
    answered = replace(
        profile, rules=tuple(replace(r, action=_without_listener(r.action)) for r in profile.rules)
    )
    return _over(replace(answered, default=_without_listener(profile.default)), own)


def worker_template(profile: Profile) -> tuple[bytes, tuple[int, ...]]:
    """The worker's program and the byte offsets of the 32-bit little-endian words to overwrite with its pid.

    For those who start many workers: compile once, then `patch_pid` or write the words themselves.
    """
    rules = worker_rules(profile)
    program = compile_profile(rules)
    offsets = tuple(
        at + 4
        for at in range(0, len(program), INSTRUCTION.size)
        if INSTRUCTION.unpack_from(program, at)[::3] == (JEQ, PID_PLACEHOLDER)
    )
    expected = sum(r.name == "tgkill" and bool(r.conditions) for r in rules.rules)
    if not len(offsets) == expected == program.count(PID_PLACEHOLDER.to_bytes(4, "little")):
        raise ProfileError(
            f"value {PID_PLACEHOLDER:#x} stands for the worker's pid: remove it from the profile"
        )
    return program, offsets


def patch_pid(program: bytes, offsets: Iterable[int], pid: int) -> bytes:
    """`program` for the worker whose pid, in its own pid namespace, is `pid`."""
    if not 0 < pid <= PID_MAX:
        raise ValueError(f"pid is {pid}, limit is {PID_MAX}: give the worker's pid in its own namespace")
    patched = bytearray(program)
    for at in offsets:
        patched[at : at + 4] = pid.to_bytes(4, "little")
    return bytes(patched)


def worker_filter(profile: Profile, pid: int) -> bytes:
    """The program to load last in a worker."""
    program, offsets = worker_template(profile)
    return patch_pid(program, offsets, pid)


def _is(index: int, value: int) -> Condition:
    return Condition(index, "SCMP_CMP_EQ", value, width=32)


def _masked(index: int, mask: int, want: int = 0) -> Condition:
    return Condition(index, "SCMP_CMP_MASKED_EQ", mask, want, width=32)


def _rules(profile: Profile, name: str, action: int, reason: str, *conditions: Condition) -> list[Rule]:
    """One rule, or none where this machine has no such call."""
    number = syscall_table(profile.machine).get(name)
    return [] if number is None else [Rule(name, number, action, conditions, reason)]


def _forced(profile: Profile) -> list[Rule]:
    refused = ERRNO | errno.EPERM
    return [
        *_arena(profile, refused),
        *_rules(profile, "prctl", refused, "a filter by another door", _is(0, PR_SET_SECCOMP)),
        *_rules(
            profile, "prctl", refused, "would undo what hides memory from siblings", _is(0, PR_SET_DUMPABLE)
        ),
        *_rules(profile, "prctl", refused, "would let a worker outlive its zygote", _is(0, PR_SET_PDEATHSIG)),
        *_rules(
            profile, "clone3", ERRNO | errno.ENOSYS, "its flags are in memory; libraries fall back to clone"
        ),
    ]


def _arena(profile: Profile, refused: int) -> list[Rule]:
    if profile.permits("execve") or profile.permits("sendmsg"):
        return []
    copying = "another number for the arena could be mapped executable"
    own = _rules(profile, "mmap", refused, "the arena is written, and is not to be executed", _masked(2, PROT_EXEC, PROT_EXEC),
                 _is(4, ARENA_ANSWERS))
    for name in ("dup", "dup2", "dup3"):
        own += _rules(profile, name, refused, copying, _is(0, ARENA_ANSWERS))
    for command in F_DUPFDS:
        own += _rules(profile, "fcntl", refused, copying, _is(0, ARENA_ANSWERS), _is(1, command))
    return own


def _fork(profile: Profile, action: int, reason: str) -> list[Rule]:
    """The profile's clone rules without namespaces and foreign children; `action` where it refuses a fork."""
    plain = _masked(0, CLONE_NAMESPACES | CLONE_PARENT | CLONE_THREAD)
    bounded = _masked(0, CLONE_NAMESPACES | CLONE_PARENT)
    own = [
        replace(
            r,
            conditions=(*r.conditions, bounded),
            action=_without_listener(r.action) if action == ALLOW else r.action,
        )
        if r.action & ACTION_MASK in (ALLOW, LOG, NOTIFY, TRACE)
        else r
        for r in profile.rules
        if r.name == "clone"
    ]
    if profile.decide("clone", (FORK_FLAGS,)) & ACTION_MASK not in (ALLOW, LOG):
        own = [*_rules(profile, "clone", action, reason, plain), *own]
    if profile.default & ACTION_MASK in (ALLOW, LOG):
        own += _rules(profile, "clone", ALLOW, "the profile allows what it does not name", bounded)
    return [*own, *_rules(profile, "clone", ERRNO | errno.EPERM, "a namespace, or a child that is not ours")]


def _without_listener(action: int) -> int:
    """A second filter has no listener: the first one's question stands, so this one lets it through."""
    return ALLOW if action & ACTION_MASK == NOTIFY else action


def _over(profile: Profile, own: list[Rule]) -> Profile:
    """`own` first, then the profile's rules but for the calls of CLOSED and clone, which end in a refusal."""
    ends = [
        r
        for n in CLOSED
        for r in _rules(profile, n, ERRNO | errno.EPERM, "only a step of confinement that is ours")
    ]
    rest = [r for r in profile.rules if r.name not in CLOSED and r.name != "clone"]
    return replace(profile, rules=(*own, *ends, *rest))
