"""Reading a profile: what is accepted, what is refused and how, and what our own profiles must keep."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from pyproc.sandbox import needs, oci, profile
from pyproc.sandbox.rules import ALLOW, ERRNO, KILL_THREAD, LOG, MACHINES, NOTIFY, Profile, ProfileError, syscall_table

SHIPPED = ("strict", "default")


def document(*syscalls: dict[str, Any], **top: Any) -> str:
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(syscalls), **top})


def allow(*names: str, args: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **({"args": args} if args else {}), **more}


def arg(index: int, op: str, value: float, **more: int) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, **more}


def read(
    *syscalls: dict[str, Any], machine: str = "x86_64", kernel: tuple[int, int] = (6, 1), **options: Any
) -> Profile:
    return oci.parse(document(*syscalls), machine=machine, kernel=kernel, **options)


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("{", "not JSON", "OCI seccomp format"),
        ("[]", "profile is []", "write an object"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "defaultAction": "SCMP_ACT_ALLOW"}', "repeats a key", "once"),
        ("{}", "defaultAction is None", "SCMP_ACT_ERRNO"),
        (document(defaultAction="ALLOW"), "'ALLOW'", "use one of"),
        (document(defaultActoin="x"), "'defaultActoin'", "known are"),
        (document(listenerPath="/x"), "'listenerPath'", "known are"),
        (document(defaultErrnoRet=5000), "5000", "0 to 4095"),
        (document(defaultErrnoRet=True), "True", "integer"),
        (document(defaultErrnoRet=0), "is 0", "write 1 for EPERM"),
        (document(architectures=["SCMP_ARCH_S390X"]), "SCMP_ARCH_S390X", "add it to architectures"),
        (document(architectures=["x86_64"]), "'x86_64'", "SCMP_ARCH_X86_64"),
        (document(archMap=[{"architecture": 1}]), "1", "write names"),
        (document(syscalls={}), "{}", "write a list"),
        (document({"names": [], "action": "SCMP_ACT_ALLOW"}), "[]", "at least one"),
        (document({"names": ["read", "read"], "action": "SCMP_ACT_ALLOW"}), "read", "each once"),
        (document({"names": [3], "action": "SCMP_ACT_ALLOW"}), "3", "write names"),
        (document({"names": ["read"]}), "action is None", "use one of"),
        (document(allow("read", agrs=[])), "'agrs'", "known are"),
        (document(allow("read", errnoRet=1)), "errnoRet is 1", "remove it"),
        (document(allow("read", reason=1)), "reason is 1", "write a text"),
        (document(allow("read", args=[arg(6, "EQ", 1)])), "index is 6", "0 to 5"),
        (document(allow("read", args=[arg(0, "EQ", -1)])), "value is -1", "0 to 18446744073709551615"),
        (document(allow("read", args=[arg(0, "EQ", 2**64)])), str(2**64), "0 to"),
        (document(allow("read", args=[arg(0, "EQ", 1.0)])), "1.0", "integer"),
        (document(allow("read", args=[arg(0, "EQ", 2**32, width=32)])), str(2**32), "0 to 4294967295"),
        (document(allow("read", args=[arg(0, "EQ", 1, width=16)])), "width is 16", "use 32"),
        (document(allow("read", args=[arg(0, "IN", 1)])), "SCMP_CMP_IN", "use one of"),
        (document(allow("read", args=[arg(0, "EQ", 1, valueTwo=1)])), "valueTwo is 1", "remove it"),
        (document(allow("read", args=[arg(0, "MASKED_EQ", 1, valueTwo=2)])), "0x2", "never match"),
        (document(allow("read", args=[{"index": 0, "value": 1}])), "op is None", "use one of"),
        (document(allow("read", includes={"arch": []})), "'arch'", "known are"),
        (document(allow("read", includes={"minKernel": "new"})), "'new'", "5.13"),
    ],
)
def test_bad_profile_is_refused_with_value_and_remedy(text: str, named: str, remedy: str) -> None:
    with pytest.raises(ProfileError) as refused:
        oci.parse(text, machine="x86_64")
    assert named in str(refused.value)
    assert remedy in str(refused.value)
    assert isinstance(refused.value, ValueError)


def test_actions_and_errno_values_are_read() -> None:
    found = oci.parse(
        document(
            {"name": "read", "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["write"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["close"], "action": "SCMP_ACT_KILL"},
            {"names": ["lseek"], "action": "SCMP_ACT_LOG"},
            allow("brk"),
            {"names": ["mmap"], "action": "SCMP_ACT_ERRNO"},
            defaultErrnoRet=13,
        ),
        machine="x86_64",
    )
    wanted = {
        "read": ERRNO | 38,
        "write": NOTIFY,
        "close": KILL_THREAD,
        "lseek": LOG,
        "brk": ALLOW,
        "mmap": ERRNO | 1,
    }
    assert {name: found.decide(name) for name in wanted} == wanted
    assert found.decide("getpid") == ERRNO | 13


def test_first_matching_rule_decides() -> None:
    found = read(
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3, "args": [arg(0, "EQ", 1)]},
        allow("kill"),
    )
    assert (found.decide("kill", [1]), found.decide("kill", [2])) == (ERRNO | 3, ALLOW)


def test_conditions_on_different_arguments_must_all_hold() -> None:
    found = read(allow("socket", args=[arg(0, "EQ", 1), arg(1, "EQ", 2)]))
    assert [found.permits("socket", a) for a in ((1, 2), (1, 3), (3, 2))] == [True, False, False]


def test_conditions_on_one_argument_are_alternatives() -> None:
    found = read(allow("fcntl", args=[arg(1, "EQ", 3), arg(1, "EQ", 4)]))
    assert [found.permits("fcntl", (0, c)) for c in (3, 4, 5)] == [True, True, False]
    assert found.notes == ()


def test_alternatives_mixed_with_other_arguments_are_noted_as_wider_than_they_look() -> None:
    found = read(allow("getsockopt", args=[arg(1, "EQ", 1), arg(2, "EQ", 3), arg(2, "EQ", 4)]))
    assert found.permits("getsockopt", (0, 1, 77))
    assert "one rule for each combination" in found.notes[0]


@pytest.mark.parametrize(
    ("op", "value", "holds", "fails"),
    [
        ("EQ", 5, (5,), (4, 6, 5 | 1 << 32)), ("NE", 5, (4, 5 | 1 << 32), (5,)),
        ("LT", 5, (0, 4), (5, 6, 1 << 32)), ("LE", 5, (5,), (6, 1 << 40)), ("GT", 5, (6, 1 << 32), (5, 0)),
        ("GE", 5, (5,), (4,)),
        ("MASKED_EQ", 4, (0, 3, 8, 1 << 32), (4, 5, 4 | 1 << 40)),
    ],
)  # fmt: skip
def test_operators(op: str, value: int, holds: tuple[int, ...], fails: tuple[int, ...]) -> None:
    found = read(allow("read", args=[arg(0, op, value)]))
    assert [found.permits("read", [v]) for v in (*holds, *fails)] == [True] * len(holds) + [False] * len(
        fails
    )


def test_width_32_ignores_the_high_half_as_the_kernel_does() -> None:
    found = read(allow("socket", args=[arg(0, "NE", 40, width=32)]))
    assert not found.permits("socket", [40 | 1 << 32])
    assert found.notes == ()


def test_wide_inequality_is_noted() -> None:
    found = read(allow("socket", args=[arg(0, "NE", 40)]))
    assert found.permits("socket", [40 | 1 << 32])
    assert '"width": 32' in found.notes[0]


def test_names_of_no_machine_and_of_the_other_machine_are_reported_apart() -> None:
    found = read(allow("read", "raed", "stat"), machine="aarch64")
    assert (found.unknown, found.absent) == (("raed",), ("stat",))
    assert [r.name for r in found.rules] == ["read"]


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"includes": {"minKernel": "4.8"}}, True), ({"includes": {"minKernel": "6.2"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False), ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False), ({"excludes": {"arches": ["s390"]}}, True),
        ({"includes": {"caps": ["CAP_A"]}}, True), ({"includes": {"caps": ["CAP_A", "CAP_B"]}}, False),
        ({"excludes": {"caps": ["CAP_A", "CAP_B"]}}, False), ({"excludes": {"caps": ["CAP_B"]}}, True),
        ({"includes": {"caps": ["CAP_A"], "minKernel": "9.0"}}, False),
        ({"includes": None, "excludes": {}}, True),
    ],
)  # fmt: skip
def test_includes_and_excludes(more: dict[str, Any], kept: bool) -> None:
    assert read(allow("read", **more), capabilities={"CAP_A"}).permits("read") is kept


def test_architecture_map_of_docker_is_read_and_foreign_modes_are_noted() -> None:
    maps = [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ]
    found = oci.parse(document(archMap=maps), machine="x86_64")
    assert "SCMP_ARCH_X32" in found.notes[0]
    with pytest.raises(ProfileError, match="SCMP_ARCH_AARCH64"):
        oci.parse(document(archMap=maps), machine="aarch64")


def test_denylist_and_exposing_calls_are_noted() -> None:
    found = oci.parse(
        document(allow("ptrace"), defaultAction="SCMP_ACT_ALLOW", flags=["SECCOMP_FILTER_FLAG_LOG"]),
        machine="x86_64",
    )
    assert [
        word for word in ("flags", "list of denials", "ptrace") if not any(word in n for n in found.notes)
    ] == []


def test_profile_of_the_security_guide_is_refused_with_the_names_it_lacks() -> None:
    guide = document(allow("read", "write", "open", "close"), architectures=["SCMP_ARCH_X86_64"])
    found = oci.parse(guide, machine="x86_64")
    lacking = needs.missing(found)
    assert {"brk", "mmap", "openat", "futex", "exit_group"} <= set(lacking)
    assert not {"read", "write", "close"} & set(lacking)
    with pytest.raises(ProfileError, match=f"lacks {', '.join(lacking)}: allow them"):
        needs.require_start(found)


def test_call_that_is_allowed_with_the_wrong_arguments_is_missing() -> None:
    assert "mmap" in needs.missing(read(allow("mmap", args=[arg(3, "EQ", 1)])))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_is_clean_and_starts_cpython(name: str, machine: str) -> None:
    found = profile.shipped(name, machine=machine)
    assert (found.unknown, found.notes, needs.missing(found)) == ((), (), [])
    assert found.default == ERRNO | 1


@pytest.mark.parametrize("name", SHIPPED)
def test_each_rule_has_a_reason_and_each_call_one_reason(name: str) -> None:
    rules = json.loads(files("pyproc.sandbox").joinpath("profiles", f"{name}.json").read_text())["syscalls"]
    assert [r["names"] for r in rules if len(r.get("reason", "")) < 20] == []
    reasons: dict[str, set[str]] = {}
    for rule in rules:
        for call in rule["names"]:
            reasons.setdefault(call, set()).add(rule["reason"])
    assert [call for call, found in reasons.items() if len(found) != 1] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_no_rule_of_a_shipped_profile_is_superfluous(name: str) -> None:
    rules = profile.shipped(name, machine="x86_64").rules
    assert len({(r.name, r.conditions) for r in rules}) == len(rules)
    closed = {r.name for r in rules if not r.conditions}
    assert [r.name for r in rules if r.name in closed and r.conditions] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_ordered_compares_and_int_arguments_are_32_bits_wide(name: str) -> None:
    wide = {
        (r.name, c.index)
        for r in profile.shipped(name, machine="x86_64").rules
        for c in r.conditions
        if c.width == 64
    }
    assert wide <= {("prlimit64", 2), ("sendto", 4)}, "only pointers are compared with 64 bits"


def test_hot_calls_have_no_conditions() -> None:
    for name in SHIPPED:
        rules = profile.shipped(name, machine="x86_64").rules
        assert [
            r.name
            for r in rules
            if r.name in ("read", "write", "close", "epoll_wait", "poll") and r.conditions
        ] == []


def test_default_allows_all_that_strict_allows_but_for_its_narrower_rules() -> None:
    strict, default = (profile.shipped(n, machine="x86_64") for n in SHIPPED)
    assert {r.name for r in strict.rules if r.action == ALLOW} <= {
        r.name for r in default.rules if r.action == ALLOW
    }


def test_tables_have_no_number_twice_and_know_the_newest_common_call() -> None:
    for machine in MACHINES:
        table = syscall_table(machine)
        assert len(set(table.values())) == len(table)
        assert (table["clone3"], table["landlock_restrict_self"], max(table.values())) == (435, 446, 469)
    with pytest.raises(ProfileError, match="riscv64"):
        syscall_table("riscv64")


def test_unknown_shipped_name_is_refused() -> None:
    with pytest.raises(ProfileError, match="use strict, default or a file"):
        profile.shipped("../strict")
