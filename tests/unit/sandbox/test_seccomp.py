"""The compiled program by itself: what it answers at its edges, its size, its long jumps, its simulation.

That it decides as the profile says is shown in test_agreement.py.
"""

from __future__ import annotations

import json

import pytest

from pyproc.sandbox import oci, profile, seccomp
from pyproc.sandbox.rules import ALLOW, ERRNO, Condition, Profile, ProfileError, Rule, syscall_table

KILL, ENOSYS = 0x80000000, 0x50000 | 38
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("name", ["strict", "default"])
def test_every_number_of_both_tables_is_decided(name: str) -> None:
    for machine, arch in ARCHES.items():
        program = seccomp.compile_profile(profile.shipped(name, machine=machine))
        allowed = {r.number for r in profile.shipped(name, machine=machine).rules}
        for nr in range(470):
            got = seccomp.simulate(program, nr, (0,) * 6, arch)
            assert got == 0x50000 | 1 or nr in allowed


def test_foreign_architecture_and_x32_end_the_process() -> None:
    program = seccomp.compile_profile(profile.shipped("default", machine="x86_64"))
    assert seccomp.simulate(program, 20, arch=seccomp.AUDIT_ARCH_I386) == KILL
    assert seccomp.simulate(program, 0x40000000 | 39) == KILL
    assert seccomp.simulate(program, -1) == KILL
    assert seccomp.simulate(program, 470) == seccomp.simulate(program, 0x3FFFFFFF) == ENOSYS


def test_too_long_program_is_refused_with_its_size() -> None:
    args = [
        {"index": i % 5, "op": "SCMP_CMP_GT", "value": v}
        for i, v in enumerate(range(1 << 33, (1 << 33) + 900))
    ]
    raw = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}],
    }
    with pytest.raises(ProfileError, match="limit is 4096: use fewer argument rules"):
        seccomp.compile_profile(oci.parse(json.dumps(raw), machine="x86_64"))


def test_rule_behind_an_unconditional_one_is_never_reached() -> None:
    rules = (
        Rule("read", 0, ALLOW),
        Rule("read", 0, ERRNO | 5, (Condition(0, "SCMP_CMP_EQ", 1),)),
    )
    program = seccomp.compile_profile(Profile("x86_64", ERRNO | 1, rules))
    assert seccomp.simulate(program, 0, [1]) == ALLOW


def test_long_jumps_are_taken_in_the_middle_of_a_great_program() -> None:
    table = syscall_table("x86_64")
    rules = tuple(
        Rule(name, nr, ALLOW, (Condition(0, "SCMP_CMP_GT", nr << 33),))
        for name, nr in table.items()
        if nr % 2
    )
    program = seccomp.compile_profile(Profile("x86_64", ERRNO | 1, rules))
    assert len(program) // 8 > 1000, "targets are far beyond the 255 instructions of a conditional jump"
    for rule in rules:
        answers = [
            seccomp.simulate(program, rule.number, [value])
            for value in (rule.number << 33, (rule.number << 33) + 1)
        ]
        assert answers == [ERRNO | 1, ALLOW]


@pytest.mark.parametrize(
    "program",
    [
        b"",
        bytes(8),
        seccomp.INSTRUCTION.pack(seccomp.JUMP, 0, 0, 9),
        seccomp.INSTRUCTION.pack(0x20, 0, 0, 64),
    ],
)
def test_simulation_refuses_what_the_kernel_would(program: bytes) -> None:
    with pytest.raises(ValueError, match="filter"):
        seccomp.simulate(program, 0)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (0x7FFF0000, "allow"),
        (0x50001, "refuse EPERM"),
        (0x7FC00000, "ask the supervisor"),
        (KILL, "end the process"),
        (0x50FFF, "refuse 4095"),
    ],
)
def test_answers_are_spelled(action: int, words: str) -> None:
    assert seccomp.spelled(action) == words
