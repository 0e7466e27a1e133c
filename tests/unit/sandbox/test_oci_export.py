"""A profile written for container engines: nothing but their keys, and every call decided as before."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyproc.sandbox import derive, oci, oci_export, profile
from pyproc.sandbox.rules import ALLOW, ERRNO, KILL_THREAD, MACHINES, Condition, Profile, ProfileError, Rule

OPS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
EDGES = [0, 1, 2, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
OCI_KEYS = {"names", "action", "errnoRet", "args", "comment"}


def condition(index: int, op: str, value: int, two: int = 0, width: int = 32) -> Condition:
    return Condition(index, f"SCMP_CMP_{op}", value, two & value if op == "MASKED_EQ" else 0, width)


def one(*conditions: Condition, action: int = ALLOW) -> Profile:
    return Profile("x86_64", ERRNO | 1, (Rule("read", 0, action, conditions),))


def again(found: Profile) -> Profile:
    return oci.parse(oci_export.to_oci(found), machine=found.machine)


conditions = st.builds(
    condition, st.integers(0, 2), st.sampled_from(OPS), st.sampled_from(EDGES) | st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(conditions, min_size=1, max_size=2, unique_by=lambda c: c.index), st.integers(0, 2**63))
def test_exported_32_bit_compare_holds_for_the_same_numbers(parts: list[Condition], seed: int) -> None:
    before, rng = one(*parts), random.Random(seed)
    after = again(before)
    for _ in range(30):
        args = [rng.getrandbits(64) for _ in range(6)]
        for c in parts:
            near = (c.value_two | rng.getrandbits(32) & ~c.value) if c.op == "SCMP_CMP_MASKED_EQ" else c.value
            near = (near + rng.choice([0, 0, 1, -1, rng.getrandbits(32)])) % 2**32
            args[c.index] = near | rng.choice([0, 1, 2**31]) << 32
        assert after.decide("read", args) == before.decide("read", args), (parts, args)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("value", EDGES)
def test_exported_compare_at_its_edges(op: str, value: int) -> None:
    before = one(condition(0, op, value, value & 5))
    after = again(before)
    for seen in {*EDGES, value, (value + 1) % 2**32, (value - 1) % 2**32}:
        for high in (0, 1 << 32, 0xFFFFFFFF << 32):
            assert after.permits("read", [seen | high]) == before.permits("read", [seen | high]), (seen, high)


@pytest.mark.parametrize("name", profile.SHIPPED)
@pytest.mark.parametrize("machine", MACHINES)
def test_export_has_no_key_of_ours_and_keeps_the_reasons(name: str, machine: str) -> None:
    found = profile.shipped(name, machine=machine)
    raw: dict[str, Any] = json.loads(oci_export.to_oci(found))
    assert set(raw) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert {key for entry in raw["syscalls"] for key in entry} <= OCI_KEYS
    assert {key for entry in raw["syscalls"] for arg in entry.get("args", []) for key in arg} <= {"index", "op", "value", "valueTwo"}
    told = again(found)
    assert {(r.name, r.reason) for r in told.rules} == {(r.name, r.reason) for r in found.rules}
    assert oci_export.to_oci(told) == oci_export.to_oci(found), "a second export changes nothing more"
    assert told.remarks() == ()


def test_two_conditions_on_one_argument_become_one_mask() -> None:
    before = one(condition(0, "MASKED_EQ", 0xF0, 0x10), condition(0, "MASKED_EQ", 0x0F, 0x02), condition(1, "EQ", 7))
    args = json.loads(oci_export.to_oci(before))["syscalls"][0]["args"]
    assert [(a["index"], a["value"], a["valueTwo"]) for a in args] == [(0, 0xFF, 0x12), (1, 0xFFFFFFFF, 7)]
    never = one(condition(0, "MASKED_EQ", 1, 1), condition(0, "EQ", 2))
    assert json.loads(oci_export.to_oci(never))["syscalls"] == [], "they exclude each other: the rule never applied"
    with pytest.raises(ProfileError, match="read has SCMP_CMP_GT and SCMP_CMP_LT on argument 0: the OCI format has no word"):
        oci_export.to_oci(one(condition(0, "GT", 1, width=64), condition(0, "LT", 9, width=64)))


def test_derived_filters_can_be_shown_as_files_too() -> None:
    found = derive.zygote_rules(profile.shipped("strict", machine="x86_64"))
    for call, args in (("clone", (derive.FORK_FLAGS,)), ("clone", (0x10000000,)), ("unshare", (0x10000000,)), ("prctl", (4, 1))):
        assert again(found).decide(call, args) == found.decide(call, args)


@pytest.mark.parametrize("action", sorted({v for v in oci.ACTIONS.values() if v != ERRNO} | {ERRNO | 38, KILL_THREAD}))
def test_every_answer_is_written_and_read_again(action: int) -> None:
    assert again(Profile("x86_64", action, (Rule("read", 0, action),))).decide("read") == action
    assert again(Profile("x86_64", action, ())).default == action
