"""The two derived filters, simulated on both machines: what each answers; every known weakness is shut.

ROWS is section 10 of the sandbox's measurements: one line for each weakness that was found, as the call that
used it. A worker meets both filters, import-time code only the first: so the first alone must refuse each
row.
"""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Sequence

import pytest

from pyproc.sandbox import derive, needs, oci, profile, seccomp
from pyproc.sandbox.rules import ALLOW, ERRNO, MACHINES, NOTIFY, Profile, ProfileError, syscall_table

MACHINES = list(MACHINES)
PID, HIGH = 77, 1 << 32
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
FORK, THREAD = derive.FORK_FLAGS, 0x3D0F00
SEED = int(os.environ.get("PYPROC_SEED", random.SystemRandom().randrange(2**32)))


@functools.cache  # some hundred cases ask four filters
def filters(name: str, machine: str) -> tuple[Profile, bytes, bytes]:
    base = profile.shipped(name, machine=machine)
    return base, derive.zygote_filter(base), derive.worker_filter(base, PID)


def answers(name: str, machine: str, call: str, args: Sequence[int]) -> tuple[int, int] | None:
    nr = syscall_table(machine).get(call)
    if nr is None:
        return None
    _, zygote, worker = filters(name, machine)
    arch = seccomp.AUDIT_ARCH[machine]
    return seccomp.simulate(zygote, nr, args, arch), seccomp.simulate(worker, nr, args, arch)


def rank(action: int) -> int:
    """The kernel takes the first of these that a filter gave, seccomp(2): KILL_PROCESS ... ALLOW."""
    order = [0x80000000, 0x0, 0x30000, 0x50000, 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000]
    return order.index(action & 0xFFFF0000)


BOTH = ("strict", "default")
ROWS: list[tuple[str, tuple[str, ...], str, tuple[int, ...]]] = [
    ("zygote: vsock socket", BOTH, "socket", (40, 1, 0)),
    ("zygote: vsock socket with high bits", BOTH, "socket", (40 | HIGH, 1, 0)),
    ("zygote: inet family in the low half of junk", ("strict",), "socket", (2 | HIGH, 1, 0)),
    ("zygote: netlink socket", BOTH, "socket", (16, 3, 0)),
    ("zygote: kernel crypto socket", BOTH, "socket", (38, 5, 0)),
    ("zygote: packet socket", BOTH, "socket", (17, 3, 0)),
    ("zygote: prctl undoes dumpable", BOTH, "prctl", (4, 1)),
    ("zygote: prctl loads a filter", BOTH, "prctl", (22, 2)),
    ("zygote: prctl loads a filter, high bits", BOTH, "prctl", (22 | HIGH, 2)),
    ("zygote: another prctl, memory merging", BOTH, "prctl", (67, 1)),
    ("zygote: seccomp strict mode", BOTH, "seccomp", (0, 0)),
    ("zygote: seccomp with a new listener", BOTH, "seccomp", (1, 8)),
    ("zygote: seccomp for all threads", BOTH, "seccomp", (1, 1)),
    ("zygote: setrlimit", BOTH, "setrlimit", (7, 1)),
    ("zygote: prlimit64 that sets", BOTH, "prlimit64", (0, 7, 1, 0)),
    ("zygote: prlimit64 that sets, pointer above 4 GiB", BOTH, "prlimit64", (0, 7, HIGH, 0)),
    ("zygote: kill everything", BOTH, "kill", (2**32 - 1, 9)),
    ("zygote: kill", ("strict",), "kill", (1, 9)),
    ("zygote: setresuid", BOTH, "setresuid", (0, 0, 0)),
    ("zygote: mount", BOTH, "mount", ()),
    ("zygote: unshare of more than the user namespace", BOTH, "unshare", (0x10000000 | 0x40000000,)),
    ("zygote: unshare with high bits", BOTH, "unshare", (0x10000000 | HIGH,)),
    ("strict: sendto with an address", ("strict",), "sendto", (3, 1, 1, 0, 0x7F0000001000, 16)),
    ("strict: sendto with an address in the high half", ("strict",), "sendto", (3, 1, 1, 0, HIGH, 16)),
    ("strict: sendmsg with an address or descriptors", ("strict",), "sendmsg", (3, 1, 0)),
    ("strict: datagram pair", BOTH, "socketpair", (1, 2, 0)),
    ("strict: datagram pair with SOCK_CLOEXEC", BOTH, "socketpair", (1, 2 | 0x80000, 0)),
    ("strict: seqpacket pair", BOTH, "socketpair", (1, 5, 0)),
    ("strict: inet pair", BOTH, "socketpair", (2, 1, 0)),
    ("strict: memfd pages escape RLIMIT_AS", BOTH, "memfd_create", (1, 0)),
    ("strict: truncates a shared descriptor", ("strict",), "ftruncate", (2, 0)),
    ("strict: rewrites a shared descriptor at a position", ("strict",), "pwrite64", (2, 1, 1, 0)),
    ("strict: pidfd of the supervisor", BOTH, "getsockopt", (3, 1, 77)),
    ("strict: credentials of the supervisor", BOTH, "getsockopt", (3, 1, 17)),
    ("strict: security label and groups of the peer", BOTH, "getsockopt", (3, 1, 59)),
    ("strict: an allowed option at another level", BOTH, "getsockopt", (3, 0, 4)),
    ("strict: MSG_OOB sent", BOTH, "sendto", (3, 1, 1, 1, 0, 0)),
    ("strict: MSG_FASTOPEN connects", BOTH, "sendto", (3, 1, 1, 0x20000000, 0, 0)),
    ("strict: MSG_OOB received", BOTH, "recvfrom", (3, 1, 1, 1, 0, 0)),
    ("strict: MSG_OOB received as a message", BOTH, "recvmsg", (3, 1, 1)),
    ("strict: MSG_ERRQUEUE", BOTH, "recvmsg", (3, 1, 0x2000)),
    ("strict: CPU clock of another process, gettime", BOTH, "clock_gettime", (2**32 - 6, 1)),
    ("strict: CPU clock of another process, 64 bits", BOTH, "clock_gettime", (2**64 - 6, 1)),
    ("strict: CPU clock of another process, getres", BOTH, "clock_getres", (2**32 - 6, 1)),
    ("strict: CPU clock of another process, sleep", BOTH, "clock_nanosleep", (2**32 - 6, 0)),
    ("strict: auxiliary clock", BOTH, "clock_gettime", (16, 1)),
    ("strict: getpgid reveals pids", BOTH, "getpgid", (1,)),
    ("strict: getsid reveals pids", BOTH, "getsid", (1,)),
    ("strict: sched_getaffinity reveals pids", BOTH, "sched_getaffinity", (1, 8, 1)),
    ("strict: prlimit64 reads a sibling's", BOTH, "prlimit64", (1, 7, 0, 1)),
    *((f"strict: futex PI command {c}", BOTH, "futex", (1, c)) for c in (6, 7, 8, 11, 12, 13, 0x86, 0x188)),
    ("strict: futex FD", BOTH, "futex", (1, 2)),
    ("strict: MAP_HUGETLB", BOTH, "mmap", (0, 1 << 21, 3, 0x40022, 2**64 - 1, 0)),
    ("strict: the arena, executable", ("strict",), "mmap", (0, 4096, 5, 2, 7, 0)),
    ("strict: the arena, executable, with high bits", ("strict",), "mmap", (0, 4096, 5 | HIGH, 1, 7 | HIGH, 0)),
    ("strict: the arena by another number", ("strict",), "dup", (7,)),
    ("strict: the arena by a chosen number", ("strict",), "dup2", (7, 9)),
    ("strict: the arena by a chosen number, dup3", ("strict",), "dup3", (7, 9, 0)),
    *((f"strict: the arena by fcntl {c}", ("strict",), "fcntl", (7, c, 9)) for c in (0, 1030)),
    ("strict: MADV_MERGEABLE", BOTH, "madvise", (0, 4096, 12)),
    ("strict: MADV_HWPOISON", BOTH, "madvise", (0, 4096, 100)),
    ("default: chmod", BOTH, "chmod", ()),
    ("default: fchmod", BOTH, "fchmod", ()),
    ("default: fchmodat", BOTH, "fchmodat", ()),
    ("default: fchmodat2", BOTH, "fchmodat2", ()),
    ("default: utimensat", BOTH, "utimensat", ()),
    ("default: setxattr", BOTH, "setxattr", ()),
    ("default: inotify_init1", BOTH, "inotify_init1", ()),
    ("default: inotify_add_watch", BOTH, "inotify_add_watch", ()),
    ("default: fanotify_init", BOTH, "fanotify_init", ()),
    *((f"default: fcntl {c}", BOTH, "fcntl", (3, c)) for c in (5, 6, 7, 8, 10, 36, 37, 38, 1024, 1026, 1031)),
    ("default: flock", BOTH, "flock", (3, 1)),
    ("default: SO_SNDBUF", BOTH, "setsockopt", (3, 1, 7)),
    ("default: SO_RCVBUF", BOTH, "setsockopt", (3, 1, 8)),
    ("default: SO_SNDBUFFORCE", BOTH, "setsockopt", (3, 1, 32)),
    ("default: SO_ATTACH_FILTER", BOTH, "setsockopt", (3, 1, 26)),
    ("default: SO_ATTACH_FILTER with high bits", BOTH, "setsockopt", (3, 1, 26 | HIGH)),
    ("default: SO_BINDTODEVICE", BOTH, "setsockopt", (3, 1, 25)),
    ("default: an IP option", BOTH, "setsockopt", (3, 0, 1)),
    ("default: MPTCP", BOTH, "socket", (2, 1, 262)),
    ("default: SCTP", BOTH, "socket", (2, 1, 132)),
    ("default: UDP-Lite", BOTH, "socket", (2, 2, 136)),
    ("default: raw socket", BOTH, "socket", (2, 3, 1)),
    ("default: raw socket of a TCP number", BOTH, "socket", (2, 3, 6)),
    ("default: CLONE_PARENT", BOTH, "clone", (FORK | derive.CLONE_PARENT,)),
    ("default: CLONE_PARENT thread", BOTH, "clone", (THREAD | derive.CLONE_PARENT,)),
    ("default: PR_SET_PDEATHSIG 0", BOTH, "prctl", (1, 0)),
    *((f"clone with flag {1 << b:#x}", BOTH, "clone", (FORK | 1 << b,)) for b in (17, *range(25, 31))),
    ("clone3, whose flags no filter sees", BOTH, "clone3", (1, 88)),
    ("vfork in strict", ("strict",), "vfork", ()),
    ("fork in strict", ("strict",), "fork", ()),
    ("execve in strict", ("strict",), "execve", ()),
    ("write access in strict", ("strict",), "openat", (0, 0, 1)),
    ("creating in strict", ("strict",), "openat", (0, 0, 0o100)),
    ("O_TMPFILE in strict", ("strict",), "openat", (0, 0, 0o20200000)),
    ("openat2 in strict", ("strict",), "openat2", ()),
    ("io_uring", BOTH, "io_uring_setup", ()), ("ptrace", BOTH, "ptrace", ()), ("bpf", BOTH, "bpf", ()),
    ("setns", BOTH, "setns", ()), ("pidfd_getfd", BOTH, "pidfd_getfd", ()),
    ("setpgid", BOTH, "setpgid", (0, 0)),
    ("TIOCSTI", BOTH, "ioctl", (0, 0x5412)), ("TIOCSTI with high bits", BOTH, "ioctl", (0, 0x5412 | HIGH)),
    ("tkill", BOTH, "tkill", (1, 9)), ("rt_sigqueueinfo", BOTH, "rt_sigqueueinfo", (1, 9)),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("row", "names", "call", "args"), ROWS, ids=[r[0].replace(" ", "-") for r in ROWS])
def test_known_weakness_is_refused_by_the_first_filter(
    row: str, names: tuple[str, ...], call: str, args: tuple[int, ...], machine: str
) -> None:
    for name in names:
        found = answers(name, machine, call, args)
        if found is None:
            continue  # this machine has no such call
        assert found[0] in (EPERM, ENOSYS), (
            f"{row}: the zygote's filter of {name} answers {seccomp.spelled(found[0])}"
        )
        assert min(found, key=rank) in (EPERM, ENOSYS)


STEPS = [
    ("clone", (FORK,), NOTIFY, ALLOW), ("clone", (THREAD,), ALLOW, ALLOW),
    ("clone", (0x4111,), NOTIFY, ALLOW),
    ("unshare", (0x10000000,), NOTIFY, EPERM), ("seccomp", (1, 0, 1), NOTIFY, EPERM),
    ("seccomp", (2, 0, 1), EPERM, EPERM),
    ("landlock_create_ruleset", (1, 24, 0), EPERM, EPERM), ("landlock_add_rule", (1, 1), EPERM, EPERM),
    ("landlock_restrict_self", (1, 0), ALLOW, EPERM), ("landlock_restrict_self", (1, 1), EPERM, EPERM), ("setsid", (), NOTIFY, EPERM),
    ("tgkill", (PID, PID, 6), NOTIFY, ALLOW), ("tgkill", (PID + 1, PID, 6), NOTIFY, EPERM),
    ("tgkill", (1, 1, 9), NOTIFY, EPERM),
    ("prctl", (1, 9), ALLOW, EPERM), ("prctl", (1, 0), EPERM, EPERM), ("prctl", (1, 15), EPERM, EPERM),
    ("capset", (1, 1), ALLOW, EPERM), ("prctl", (24, 5), ALLOW, EPERM), ("prctl", (28, 0xEF), ALLOW, EPERM),
    ("prctl", (15, 1), ALLOW, ALLOW), ("prctl", (47, 1), EPERM, EPERM),
    ("recvmsg", (3, 1, 0x40000000), ALLOW, ALLOW),
    ("recvmsg", (3, 1, 0x40000040), ALLOW, ALLOW), ("sendto", (3, 1, 9, 0x4000, 0, 0), ALLOW, ALLOW),
    ("recvfrom", (3, 1, 9, 0x40), ALLOW, ALLOW), ("wait4", (), ALLOW, EPERM), ("waitid", (), EPERM, EPERM),
    ("futex", (1, 0x80), ALLOW, ALLOW), ("futex", (1, 0x189), ALLOW, ALLOW),
    ("openat", (0, 0, 0x280000), ALLOW, ALLOW),
    ("clock_gettime", (7,), ALLOW, ALLOW), ("socketpair", (1, 0x80801, 0), ALLOW, ALLOW),
    ("fork", (), EPERM, EPERM),
    ("getsockopt", (3, 1, 4), ALLOW, ALLOW), ("prlimit64", (0, 7, 0, 1), ALLOW, ALLOW),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("call", "args", "zygote", "worker"), STEPS)
def test_strict_filters_answer(
    call: str, args: tuple[int, ...], zygote: int, worker: int, machine: str
) -> None:
    assert answers("strict", machine, call, args) in (None, (zygote, worker))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("call", "args", "zygote", "worker"),
    [
        ("clone", (FORK,), ALLOW, ALLOW), ("clone", (0x4111,), ALLOW, ALLOW), ("fork", (), ALLOW, ALLOW),
        ("vfork", (), ALLOW, ALLOW),
        ("execve", (), ALLOW, ALLOW), ("wait4", (), ALLOW, ALLOW), ("kill", (PID, 9), ALLOW, ALLOW),
        ("setsid", (), NOTIFY, EPERM),
        ("socket", (2, 0x80801, 6), ALLOW, ALLOW), ("socket", (10, 2, 17), ALLOW, ALLOW),
        ("socket", (1, 1, 0), ALLOW, ALLOW),
        ("setsockopt", (3, 6, 1), ALLOW, ALLOW), ("unshare", (0x10000000,), NOTIFY, EPERM),
        ("tgkill", (1, 1, 9), NOTIFY, EPERM),
    ],
)  # fmt: skip
def test_default_filters_answer(
    call: str, args: tuple[int, ...], zygote: int, worker: int, machine: str
) -> None:
    assert answers("default", machine, call, args) in (None, (zygote, worker))


@pytest.mark.parametrize("name", BOTH)
def test_first_filter_lets_through_all_that_a_worker_may(name: str) -> None:
    base, zygote, worker = filters(name, "x86_64")
    rng = random.Random(SEED)
    for rule in derive.worker_rules(base).rules:
        for _ in range(200):
            args = [rng.choice([0, 1, rng.getrandbits(32), rng.getrandbits(64)]) for _ in range(6)]
            for c in rule.conditions:
                value = PID if c.value == derive.PID_PLACEHOLDER else c.value
                args[c.index] = (
                    c.value_two | rng.getrandbits(64) & ~c.value if c.op.endswith("MASKED_EQ") else value
                )
            if seccomp.simulate(worker, rule.number, args) == ALLOW:
                first = seccomp.simulate(zygote, rule.number, args)
                assert first == ALLOW or (first == NOTIFY and rule.name in derive.NOTIFIED), (
                    f"seed {SEED}: {rule.name} {args}"
                )


@pytest.mark.parametrize("name", BOTH)
def test_first_filter_adds_nothing_but_the_steps(name: str) -> None:
    base, zygote, _ = filters(name, "x86_64")
    plain = seccomp.compile_profile(base)
    added = set()
    for call, nr in syscall_table("x86_64").items():
        for args in [
            (v, w, 0, 0, 0, 0) for v in (*range(80), FORK, THREAD, 0x10000000, 2**32 - 1) for w in (0, 1)
        ]:
            if seccomp.simulate(plain, nr, args) != ALLOW and seccomp.simulate(zygote, nr, args) in (
                ALLOW,
                NOTIFY,
            ):
                added.add(call)
    steps = {
        "unshare",
        "seccomp",
        "setsid",
        "capset",
        "prctl",
        "landlock_restrict_self",
    }
    assert added == steps | ({"clone", "wait4"} if name == "strict" else set())


HOSTILE = {
    "docker-like": ("SCMP_ACT_ERRNO", True),
    "denylist": ("SCMP_ACT_ALLOW", False),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("machine", MACHINES)
def test_no_profile_lets_import_time_code_fake_later_confinement(kind: str, machine: str) -> None:
    default, listed = HOSTILE[kind]
    names = sorted(syscall_table(machine))
    raw = {
        "defaultAction": default,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}] if listed else [],
    }
    base = oci.parse(json.dumps(raw), machine=machine)
    table, arch = syscall_table(machine), seccomp.AUDIT_ARCH[machine]
    zygote, worker = derive.zygote_filter(base), derive.worker_filter(base, PID)
    for call, args, first in [
        ("seccomp", (1, 0), NOTIFY), ("seccomp", (1, 8), EPERM), ("seccomp", (0, 0), EPERM),
        ("prctl", (22, 2), EPERM),
        ("prctl", (4, 1), EPERM), ("prctl", (1, 0), EPERM), ("unshare", (0x10000000,), NOTIFY),
        ("unshare", (0x20000,), EPERM),
        ("clone", (FORK | 0x10000000,), EPERM), ("clone", (FORK | 0x8000,), EPERM),
        ("clone", (THREAD | 0x20000000,), EPERM),
        ("clone3", (1, 88), ENOSYS), ("landlock_restrict_self", (3, 0), ALLOW), ("setsid", (), NOTIFY),
        ("setpgid", (), EPERM),
        ("tgkill", (1, 1, 9), NOTIFY), ("clone", (FORK,), ALLOW), ("clone", (THREAD,), ALLOW),
    ]:  # fmt: skip
        assert seccomp.simulate(zygote, table[call], args, arch) == first, (call, args)
        if call not in ("clone", "clone3"):
            assert seccomp.simulate(worker, table[call], args, arch) == EPERM, (call, args)


def profile_with(*extra: dict[str, object]) -> Profile:
    needed = sorted({n for n, _ in needs.NEEDED})
    raw = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [*extra, {"names": needed, "action": "SCMP_ACT_ALLOW"}],
    }
    return oci.parse(json.dumps(raw), machine="x86_64")


def test_questions_of_the_profile_itself_are_left_to_the_first_filter() -> None:
    base = profile_with({"names": ["socket"], "action": "SCMP_ACT_NOTIFY"})
    nr = syscall_table("x86_64")["socket"]
    assert seccomp.simulate(derive.zygote_filter(base), nr) == NOTIFY
    assert seccomp.simulate(derive.worker_filter(base, PID), nr) == ALLOW


def test_profile_without_threads_signals_and_messages_still_makes_workers() -> None:
    base = profile_with()
    table = syscall_table("x86_64")
    zygote, worker = derive.zygote_filter(base), derive.worker_filter(base, PID)
    assert seccomp.simulate(zygote, table["clone"], [FORK]) == NOTIFY
    assert seccomp.simulate(zygote, table["clone"], [THREAD]) == EPERM
    assert seccomp.simulate(zygote, table["recvmsg"], [3, 1, 0x40000000]) == ALLOW
    assert seccomp.simulate(zygote, table["recvmsg"], [3, 1, 1]) == EPERM
    assert {seccomp.simulate(f, table["tgkill"], [PID]) for f in (zygote, worker)} == {EPERM}


def test_profile_that_cannot_start_is_refused_before_anything_is_derived() -> None:
    base = oci.parse('{"defaultAction": "SCMP_ACT_ERRNO"}', machine="x86_64")
    for derived in (derive.zygote_filter, derive.worker_template):
        with pytest.raises(ProfileError, match="cannot start CPython"):
            derived(base)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", BOTH)
def test_pid_is_patched_in_exactly_one_place(name: str, machine: str) -> None:
    base = profile.shipped(name, machine=machine)
    template, offsets = derive.worker_template(base)
    assert len(offsets) == 1
    patched = derive.patch_pid(template, offsets, PID)
    assert patched == derive.worker_filter(base, PID)
    assert sum(a != b for a, b in zip(template, patched, strict=True)) <= 4
    assert derive.PID_PLACEHOLDER.to_bytes(4, "little") not in patched


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_impossible_pid_is_refused(pid: int) -> None:
    template, offsets = derive.worker_template(profile.shipped("strict", machine="x86_64"))
    with pytest.raises(ValueError, match=f"pid is {pid}, limit is"):
        derive.patch_pid(template, offsets, pid)


def test_profile_that_holds_the_placeholder_is_refused() -> None:
    taken = {"index": 0, "op": "SCMP_CMP_EQ", "value": derive.PID_PLACEHOLDER, "width": 32}
    with pytest.raises(ProfileError, match="remove it from the profile"):
        derive.worker_template(
            profile_with({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [taken]})
        )


def test_each_derived_rule_has_a_reason() -> None:
    for name in BOTH:
        base = profile.shipped(name, machine="x86_64")
        for found in (derive.zygote_rules(base), derive.worker_rules(base)):
            assert [r.name for r in found.rules if len(r.reason) < 15] == []
