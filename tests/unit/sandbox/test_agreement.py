"""The compiler against others: a cBPF machine with a reading of the JSON (both of the tests), and libseccomp.

Rules and reasons:
* Millions of tuples are compared in every run; PYPROC_SOAK is the number for each document and machine, PYPROC_SEED the
  seed; both are printed and in the failure.
* libseccomp is asked about every number of the tables that it knows, by what we export for engines: no compare is left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyproc.sandbox import derive, oci, oci_export, profile, seccomp
from pyproc.sandbox.rules import Profile, syscall_table

COUNT = int(os.environ.get("PYPROC_SOAK", "400000"))  # 10 documents and machines: 4 million
SEED = int(os.environ.get("PYPROC_SEED", random.SystemRandom().randrange(2**32)))
HERE = Path(__file__).resolve().parent
VECTORS = HERE.parents[1] / "vectors" / "seccomp"
KERNEL = (6, 1)
MACHINES = ("x86_64", "aarch64")
DOCUMENTS = ("strict", "default", "operators", "docker", "podman")
pytestmark = pytest.mark.timeout(60 + COUNT // 20000)  # a tuple costs about 1 us

_spec = importlib.util.spec_from_file_location("judges", HERE / "judges.py")
assert _spec is not None and _spec.loader is not None
judges = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(judges)


def every_operator() -> dict[str, Any]:
    """Each operator in both widths on small and great values: alone, as alternatives, conjoined, in a row."""
    rng, rules, call = random.Random(7), list[dict[str, Any]](), ""
    calls = iter(sorted(syscall_table("x86_64").keys() & syscall_table("aarch64").keys()))
    for op in judges.OPERATORS:
        for width in (32, 64):
            for value in (0, 5, 0x80000000, 0xFFFFFFFF, *((1 << 32, 0x7_0000_0005, 2**64 - 1) if width == 64 else ())):
                more = {"valueTwo": value & rng.getrandbits(64)} if op == "MASKED_EQ" else {}
                one = {"index": rng.randrange(6), "op": f"SCMP_CMP_{op}", "value": value, "width": width, **more}
                other = {"index": (one["index"] + 1) % 6, "op": "SCMP_CMP_EQ", "value": 5, "width": 32}
                third = {**other, "index": one["index"]}
                for args in ([one], [one, other], [one, third], [one, third, other]):
                    action = rng.choice(["SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRAP", "SCMP_ACT_LOG"])
                    if not rules or rng.random() < 0.5:
                        call = next(calls)  # else one more rule for the same call
                    rules.append({"names": [call], "action": action, "args": args})
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": rules}


def document(name: str) -> dict[str, Any]:
    if name == "operators":
        return every_operator()
    path = VECTORS / f"{name}-default.json"
    if name in profile.SHIPPED:
        path = files("pyproc.sandbox").joinpath("profiles", f"{name}.json")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def read(raw: dict[str, Any], machine: str) -> Profile:
    return oci.parse(json.dumps(raw), machine=machine, kernel=KERNEL)


def agree(got: np.ndarray, wanted: np.ndarray, calls: Any, *, what: str) -> None:
    if len(wrong := np.flatnonzero(got != wanted)):
        arch, number, args = (part[..., wrong[0]] for part in calls)
        told = f"arch {arch:#x} nr {number} args {[hex(a) for a in args]}"
        pytest.fail(f"seed {SEED}, {what}: {told} gave {got[wrong[0]]:#x}, not {wanted[wrong[0]]:#x}; {len(wrong)} such")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_compiled_filter_decides_as_the_text_says(name: str, machine: str) -> None:
    raw, table = document(name), dict(syscall_table(machine))
    found = read(raw, machine)
    program, rng, allowed = seccomp.compile_profile(found), np.random.default_rng(SEED), 0
    exported = json.loads(oci_export.to_oci(found))
    again = None if name == "operators" else seccomp.compile_profile(read(exported, machine))  # too long: masks for each compare
    print(f"seed {SEED}, {COUNT} tuples, {len(program) // 8} instructions, exported and read again {len(again or b'') // 8}")
    for calls in judges.draw(rng, raw, table, machine, COUNT):
        wanted = judges.policy(raw, table, machine, calls)
        agree(judges.machine(program, calls), wanted, calls, what=name)
        agree(judges.policy(exported, table, machine, calls), wanted, calls, what=f"{name}, exported")
        if again is not None:
            agree(judges.machine(again, calls), wanted, calls, what=f"{name}, exported and read again")
        allowed += int((wanted == 0x7FFF0000).sum())
    assert COUNT // 20 < allowed < COUNT, "tuples that are all refused or all allowed prove nothing"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["strict", "default", "docker"])
@pytest.mark.parametrize("derived", [derive.zygote_rules, derive.worker_rules])
def test_derived_filters_decide_as_their_rules_say(derived: Any, name: str, machine: str) -> None:
    found = derived(read(document(name), machine))
    exported = json.loads(oci_export.to_oci(found))
    program, rng = seccomp.compile_profile(found), np.random.default_rng(SEED)
    table = dict(syscall_table(machine))
    called = {number: call for call, number in table.items()}
    for calls in judges.draw(rng, exported, table, machine, COUNT // 10):
        got = judges.machine(program, calls)
        agree(got, judges.policy(exported, table, machine, calls), calls, what=f"{derived.__name__} of {name}")
        for at in range(0, len(got), 97):  # the profile's own decide(), one call at a time
            if calls[0][at] == judges.ARCHES[machine] and (call := called.get(int(calls[1][at]))):
                args = [int(a) for a in calls[2][:, at]]
                assert got[at] == found.decide(call, args), (SEED, call, args)


def test_simulation_is_the_machine_of_the_tests() -> None:
    raw, table, rng = document("default"), dict(syscall_table("x86_64")), np.random.default_rng(SEED)
    program = seccomp.compile_profile(read(raw, "x86_64"))
    for calls in judges.draw(rng, raw, table, "x86_64", 3000):
        got = judges.machine(program, calls)
        for at, (arch, number, *args) in enumerate(zip(*calls[:2], *calls[2], strict=True)):
            assert seccomp.simulate(program, int(number), [int(a) for a in args], int(arch)) == got[at], f"seed {SEED}"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["strict", "default", "docker", "podman"])
def test_compiled_filter_decides_as_libseccomp_does_for_every_number(name: str, machine: str) -> None:
    lib, table = judges.libseccomp(), dict(syscall_table(machine))
    found = read(document(name), machine)
    exported = json.loads(oci_export.to_oci(found))
    ours, (theirs, unknown) = seccomp.compile_profile(found), judges.their_program(lib, exported, machine)
    numbers = [n for n in range(max(table.values()) + 1) if n not in {table[call] for call in unknown}]
    assert len(numbers) > 440, f"libseccomp knows too few calls of this profile: {unknown}"
    rng, rows = np.random.default_rng(SEED), 64
    number = np.repeat(np.array(numbers, np.uint32), rows)
    junk = rng.integers(0, 2**64, (6, len(number)), np.uint64)
    args = np.where(rng.random(junk.shape) < 0.5, junk % np.uint64(40), junk)
    args[:, ::rows] = 0
    every = (np.full(len(number), judges.ARCHES[machine], np.uint32), number, args)
    drawn = list(judges.draw(rng, exported, table, machine, COUNT // 4))
    print(f"seed {SEED}, {len(numbers)} numbers, {len(ours) // 8} instructions, libseccomp {len(theirs) // 8}, not known {unknown}")
    for arch, nr, six in (every, *drawn):
        # ENOSYS for newer calls is ours alone; number -1 is a tracer's skip to libseccomp
        asked = np.isin(nr, numbers) | ((nr >= 0x40000000) & (nr != 2**32 - 1) & (machine == "x86_64"))
        calls = arch[asked], nr[asked], six[:, asked]
        agree(judges.machine(ours, calls), judges.machine(theirs, calls), calls, what=f"{name}, libseccomp")
