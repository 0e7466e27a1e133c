"""The compiler against two others: a slow reading of the JSON that is written here, and libseccomp.

Rules and reasons:
* The reference below shares no code with the package: it walks the JSON for every question.
* Tuples are drawn near the values of the rules, else nearly all would be refused and prove nothing.
  PYPROC_SOAK is the number of tuples per profile, PYPROC_SEED the seed; both are in the failure.
* libseccomp is asked only about what it can say: numbers that both know, and no ordered compare on 32 bits.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import tempfile
from importlib.resources import files
from typing import Any

import pytest

from pyproc.sandbox import derive, profile, seccomp
from pyproc.sandbox.profile import Condition, Profile, Rule

COUNT = int(os.environ.get("PYPROC_SOAK", "50000"))
SEED = int(os.environ.get("PYPROC_SEED", random.SystemRandom().randrange(2**32)))
pytestmark = pytest.mark.timeout(60 + COUNT // 1000)  # a tuple costs about 40 us
KILL, ENOSYS = 0x80000000, 0x50000 | 38
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OPS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")


def shipped(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        files("pyproc.sandbox").joinpath("profiles", f"{name}.json").read_text()
    )
    return found


def every_operator() -> dict[str, Any]:
    """Each operator in both widths on small and great values: alone, as alternatives, conjoined, in a row."""
    rng, rules, call = random.Random(7), list[dict[str, Any]](), ""
    calls = iter(sorted(profile.syscall_table("x86_64").keys() & profile.syscall_table("aarch64").keys()))
    for op in OPS:
        for width in (32, 64):
            for value in (
                0,
                5,
                0x80000000,
                0xFFFFFFFF,
                *((1 << 32, 0x7_0000_0005, 2**64 - 1) if width == 64 else ()),
            ):
                more = {"valueTwo": value & rng.getrandbits(64)} if op == "MASKED_EQ" else {}
                one = {
                    "index": rng.randrange(6),
                    "op": f"SCMP_CMP_{op}",
                    "value": value,
                    "width": width,
                    **more,
                }
                other = {"index": (one["index"] + 1) % 6, "op": "SCMP_CMP_EQ", "value": 5, "width": 32}
                third = {**other, "index": one["index"]}
                for args in ([one], [one, other], [one, third], [one, third, other]):
                    action = rng.choice(
                        ["SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRAP", "SCMP_ACT_LOG"]
                    )
                    if not rules or rng.random() < 0.5:
                        call = next(calls)  # else one more rule for the same call
                    rules.append({"names": [call], "action": action, "args": args})
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": rules}


def holds(cond: dict[str, Any], args: tuple[int, ...]) -> bool:
    a, b, two = args[cond["index"]], cond["value"], cond.get("valueTwo", 0)
    if cond.get("width", 64) == 32:
        a %= 2**32
    answers: dict[str, bool] = {
        "SCMP_CMP_NE": a != b, "SCMP_CMP_LT": a < b, "SCMP_CMP_LE": a <= b, "SCMP_CMP_EQ": a == b,
        "SCMP_CMP_GE": a >= b, "SCMP_CMP_GT": a > b, "SCMP_CMP_MASKED_EQ": (a & b) == two,
    }  # fmt: skip
    return answers[cond["op"]]


VALUES = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRAP": 0x30000,
    "SCMP_ACT_LOG": 0x7FFC0000,
}


def reference(
    raw: dict[str, Any], names: dict[int, str], machine: str, call: tuple[int, int, tuple[int, ...]]
) -> int:
    arch, nr, args = call
    if arch != ARCHES[machine] or (machine == "x86_64" and nr >= 0x40000000):
        return KILL
    if nr > max(names):
        return ENOSYS
    for rule in raw["syscalls"]:
        if names.get(nr) in rule["names"]:
            conds = rule.get("args", [])
            repeated = len({c["index"] for c in conds}) < len(conds)
            if (any if repeated else all)(holds(c, args) for c in conds):
                return VALUES[rule["action"]] if rule["action"] in VALUES else 0x50000 | rule["errnoRet"]
    return 0x50000 | int(raw["defaultErrnoRet"])


def drawn(rng: random.Random, rules: list[Rule], machine: str) -> tuple[int, int, tuple[int, ...]]:
    """One (architecture, number, arguments) near what the rules look at."""
    if rng.random() < 0.05:
        arch = rng.choice([ARCHES["x86_64"], ARCHES["aarch64"], 0x40000003, 0x40000028, rng.getrandbits(32)])
    else:
        arch = ARCHES[machine]
    if rng.random() < 0.15:
        nr = rng.choice(
            [rng.randrange(600), rng.getrandbits(32), 0x40000000 | rng.randrange(600), 2**32 - 1, 469, 470]
        )
        return arch, nr, tuple(rng.getrandbits(64) for _ in range(6))
    rule = rng.choice(rules)
    args = [rng.choice([0, 1, 5, rng.getrandbits(32), rng.getrandbits(64)]) for _ in range(6)]
    for c in rule.conditions:
        near = c.value if c.op != "SCMP_CMP_MASKED_EQ" else c.value_two | (rng.getrandbits(64) & ~c.value)
        near += rng.choice([0, 0, 0, 0, 0, 1, -1])
        near ^= rng.choice([0, 0, 0, 0, 1 << rng.randrange(64), rng.getrandbits(32) << 32])
        args[c.index] = near % 2**64
    return arch, rule.number, tuple(args)


@pytest.mark.parametrize("machine", list(ARCHES))
@pytest.mark.parametrize("name", ["strict", "default", "operators"])
def test_compiled_filter_decides_as_the_text_says(name: str, machine: str) -> None:
    raw = every_operator() if name == "operators" else shipped(name)
    found = profile.parse(json.dumps(raw), machine=machine)
    program, rules = seccomp.compile_profile(found), list(found.rules)
    names = {nr: call for call, nr in profile.syscall_table(machine).items()}
    print(f"seed {SEED}, {COUNT} tuples")
    rng, allowed = random.Random(SEED), 0
    for _ in range(COUNT):
        call = drawn(rng, rules, machine)
        wanted = reference(raw, names, machine, call)
        got = seccomp.simulate(program, call[1], call[2], call[0])
        assert got == wanted, (
            f"seed {SEED}: {names.get(call[1])} {call} gave {got:#x}, the text says {wanted:#x}"
        )
        allowed += wanted == 0x7FFF0000
    assert COUNT // 20 < allowed < COUNT, "tuples that are all refused or all allowed prove nothing"


@pytest.mark.parametrize("name", ["strict", "default"])
def test_derived_filters_decide_as_their_rules_say(name: str) -> None:
    base = profile.shipped(name, machine="x86_64")
    rng = random.Random(SEED)
    for found in (derive.zygote_rules(base), derive.worker_rules(base)):
        program, rules = seccomp.compile_profile(found), list(found.rules)
        calls = {r.number: r.name for r in rules}
        for _ in range(COUNT // 5):
            arch, nr, args = drawn(rng, rules, "x86_64")
            if arch == ARCHES["x86_64"] and nr in calls:
                assert seccomp.simulate(program, nr, args) == found.decide(calls[nr], args), (
                    f"seed {SEED}: {calls[nr]} {args}"
                )


@pytest.mark.parametrize("name", ["strict", "default"])
def test_every_number_of_both_tables_is_decided(name: str) -> None:
    for machine, arch in ARCHES.items():
        program = seccomp.compile_profile(profile.shipped(name, machine=machine))
        allowed = {r.number for r in profile.shipped(name, machine=machine).rules}
        for nr in range(470):
            got = seccomp.simulate(program, nr, (0,) * 6, arch)
            assert got == 0x50000 | 1 or nr in allowed


class _Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def libseccomp() -> Any:
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp.so.2 is not installed: nothing to compare the compiler with")
    found.seccomp_init.restype = ctypes.c_void_p
    return found


def their_program(lib: Any, found: Profile) -> bytes:
    """`found` as libseccomp compiles it, for x86_64; it refuses rules that equal the default: left out."""
    held = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(found.default)))
    try:
        assert lib.seccomp_arch_add(held, ctypes.c_uint32(ARCHES["x86_64"])) in (0, -17)
        assert lib.seccomp_attr_set(held, 2, ctypes.c_uint32(KILL)) == 0  # SCMP_FLTATR_ACT_BADARCH
        for rule in found.rules:
            if rule.action == found.default:
                continue
            told = (_Comparison * max(len(rule.conditions), 1))(*map(comparison, rule.conditions))
            code = lib.seccomp_rule_add_array(
                held, ctypes.c_uint32(rule.action), rule.number, len(rule.conditions), told
            )
            assert code in (0, -17), (rule, code)
        with tempfile.TemporaryFile() as file:
            assert lib.seccomp_export_bpf(held, file.fileno()) == 0
            file.seek(0)
            return file.read()
    finally:
        lib.seccomp_release(held)


def comparison(c: Condition) -> _Comparison:
    if c.width == 32 and c.op == "SCMP_CMP_EQ":
        return _Comparison(c.index, 7, 0xFFFFFFFF, c.value)
    return _Comparison(c.index, OPS.index(c.op.removeprefix("SCMP_CMP_")) + 1, c.value, c.value_two)


def listed(
    call: str, *conditions: tuple[int, str, int], action: str = "ALLOW", **more: int
) -> dict[str, Any]:
    args = [{"index": index, "op": f"SCMP_CMP_{op}", "value": value} for index, op, value in conditions]
    return {"names": call.split(), "action": f"SCMP_ACT_{action}", "args": args, **more}


DOCKER_LIKE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "syscalls": [
        listed("read write mmap futex setsid prctl"),
        listed("socket", (0, "NE", 40)),
        *(listed("personality", (0, "EQ", value)) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),
        listed("clone", (0, "MASKED_EQ", 0x7E020000)),
        listed("clone3", action="ERRNO", errnoRet=38),
        listed("lseek", (0, "GT", 3 << 33), (1, "LE", 2**40 + 5)),
        listed("dup3", (2, "GE", 7), action="TRAP"),
    ],
}


@pytest.mark.parametrize("name", ["strict", "default", "docker-like"])
def test_compiled_filter_decides_as_libseccomp_does(name: str) -> None:
    lib = libseccomp()
    found = profile.parse(
        json.dumps(DOCKER_LIKE if name == "docker-like" else shipped(name)), machine="x86_64"
    )
    ours, theirs = seccomp.compile_profile(found), their_program(lib, found)
    ordered = {r.number for r in found.rules for c in r.conditions if c.width == 32 and c.op == "SCMP_CMP_LE"}
    newest, rng, rules = max(profile.syscall_table("x86_64").values()), random.Random(SEED), list(found.rules)
    print(f"seed {SEED}, {len(ours) // 8} instructions, libseccomp {len(theirs) // 8}")
    for _ in range(COUNT // 2):
        arch, nr, args = drawn(rng, rules, "x86_64")
        if nr > newest and (
            nr < 0x40000000 or nr == 2**32 - 1
        ):  # ENOSYS is ours alone; -1 is a tracer's skip to libseccomp
            continue
        args = tuple(a % 2**32 for a in args) if nr in ordered else args
        got, wanted = seccomp.simulate(ours, nr, args, arch), seccomp.simulate(theirs, nr, args, arch)
        assert got == wanted, f"seed {SEED}: {nr} {args} gave {got:#x}, libseccomp {wanted:#x}"


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
    with pytest.raises(profile.ProfileError, match="limit is 4096: use fewer argument rules"):
        seccomp.compile_profile(profile.parse(json.dumps(raw), machine="x86_64"))


def test_rule_behind_an_unconditional_one_is_never_reached() -> None:
    rules = (
        Rule("read", 0, profile.ALLOW),
        Rule("read", 0, profile.ERRNO | 5, (Condition(0, "SCMP_CMP_EQ", 1),)),
    )
    program = seccomp.compile_profile(Profile("x86_64", profile.ERRNO | 1, rules))
    assert seccomp.simulate(program, 0, [1]) == profile.ALLOW


def test_long_jumps_are_taken_in_the_middle_of_a_great_program() -> None:
    table = profile.syscall_table("x86_64")
    rules = tuple(
        Rule(name, nr, profile.ALLOW, (Condition(0, "SCMP_CMP_GT", nr << 33),))
        for name, nr in table.items()
        if nr % 2
    )
    program = seccomp.compile_profile(Profile("x86_64", profile.ERRNO | 1, rules))
    assert len(program) // 8 > 1000, "targets are far beyond the 255 instructions of a conditional jump"
    for rule in rules:
        answers = [
            seccomp.simulate(program, rule.number, [value])
            for value in (rule.number << 33, (rule.number << 33) + 1)
        ]
        assert answers == [profile.ERRNO | 1, profile.ALLOW]


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
