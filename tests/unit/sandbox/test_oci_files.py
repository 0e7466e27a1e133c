"""Files that operators bring: those that container engines ship, and broken ones. What is refused, where, with which remedy."""

from __future__ import annotations

import copy
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from pyproc import ConfigError, Pool, Sandbox
from pyproc.sandbox import needs, oci, profile, seccomp
from pyproc.sandbox.rules import ALLOW, ERRNO, MACHINES, Profile, ProfileError

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "seccomp"
ENGINES = ("docker", "podman")
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
SEED = int(os.environ.get("PYPROC_SEED", random.SystemRandom().randrange(2**32)))


def engine(name: str, **options: Any) -> Profile:
    text = (VECTORS / f"{name}-default.json").read_bytes()
    return oci.parse(text, machine=options.pop("machine", "x86_64"), **{"kernel": (6, 1), **options})


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ENGINES)
def test_profile_of_a_container_engine_compiles_starts_cpython_and_has_no_unknown_name(name: str, machine: str) -> None:
    found = engine(name, machine=machine)
    assert (needs.missing(found), found.unknown) == ([], ())
    assert {"socketcall", "waitpid"} <= set(found.absent), "names of other machines are reported apart"
    assert any("SCMP_ARCH_" in note for note in found.notes)
    assert 100 < len(seccomp.compile_profile(found)) // 8 < 1000


@pytest.mark.parametrize(
    ("name", "call", "args", "wanted"),
    [
        ("docker", "clone", (0x3D0F00,), ALLOW), ("docker", "clone", (0x10000000,), EPERM),
        ("docker", "clone3", (), ENOSYS), ("docker", "personality", (8,), ALLOW), ("docker", "personality", (1,), EPERM),
        ("docker", "mount", (), EPERM), ("docker", "arch_prctl", (), ALLOW), ("docker", "ptrace", (), ALLOW),
        ("podman", "mount", (), ALLOW), ("podman", "bpf", (), EPERM), ("podman", "fanotify_init", (), EPERM),
        ("podman", "socket", (16, 3, 9), ERRNO | 22), ("podman", "socket", (16, 3, 0), ALLOW),
        ("podman", "socket", (2, 1, 9), ALLOW), ("podman", "quotactl", (), EPERM), ("podman", "map_shadow_stack", (), ENOSYS),
    ],
)  # fmt: skip
def test_profile_of_a_container_engine_decides_as_there(name: str, call: str, args: tuple[int, ...], wanted: int) -> None:
    assert engine(name).decide(call, args) == wanted


def test_capabilities_and_kernel_select_the_entries_of_an_engine() -> None:
    assert engine("docker", capabilities={"CAP_SYS_ADMIN"}).permits("mount")
    assert engine("docker", kernel=(4, 7)).decide("ptrace") == EPERM
    assert engine("docker", machine="aarch64").absent != engine("docker").absent


@pytest.mark.parametrize(
    ("more", "wanted"),
    [({"errno": "EACCES"}, 13), ({"errno": "ENOSYS", "errnoRet": 38}, 38), ({"errnoRet": None, "errno": None}, 1)],
)
def test_errno_is_read_by_its_name_as_podman_writes_it(more: dict[str, Any], wanted: int) -> None:
    raw = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", **more}]}
    assert oci.parse(json.dumps(raw), machine="x86_64").decide("read") == ERRNO | wanted
    top = {"defaultAction": "SCMP_ACT_ERRNO", **{f"default{k[0].upper()}{k[1:]}": v for k, v in more.items()}}
    assert oci.parse(json.dumps(top), machine="x86_64").default == ERRNO | wanted


def test_order_that_an_engine_would_not_keep_is_remarked() -> None:
    only = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}
    raw = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [only]},
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}, {"names": ["lseek"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["close"], "action": "SCMP_ACT_ERRNO"}, {"names": ["close"], "action": "SCMP_ACT_ALLOW"},
        ],
    }  # fmt: skip
    found = oci.parse(json.dumps(raw), machine="x86_64").remarks()
    assert [text.split()[0] for text in found] == ["read", "close"]


def test_misspelled_name_is_remarked_and_not_dropped_in_silence() -> None:
    raw = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["raed", "stat64"], "action": "SCMP_ACT_ALLOW"}]}
    found = oci.parse(json.dumps(raw), machine="x86_64")
    assert (found.unknown, found.absent) == (("raed",), ("stat64",))
    assert "raed is no system call" in found.remarks()[0]


def entry(**changes: Any) -> dict[str, Any]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **changes}


ARG = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}
BROKEN: list[tuple[str, Any, str, str]] = [
    ("cut off", '{"defaultAction": "SCMP_ACT_ERRNO", "sys', "line 1 column 37", "write it in OCI seccomp format"),
    ("not text", b"\xff\xfe\xff", "not JSON", "write it in OCI seccomp format"),
    ("empty", "", "not JSON", "write it in OCI seccomp format"),
    ("a number of 9000 digits", '{"defaultErrnoRet": ' + "9" * 9000 + "}", "not JSON", "write it in OCI seccomp format"),
    ("nested", "[" * 100_000, "not JSON", "write it in OCI seccomp format"),
    ("repeated key", '{"defaultAction": "SCMP_ACT_ERRNO", "defaultAction": "SCMP_ACT_ALLOW"}', "'defaultAction'", "write it once"),
    ("unknown action", [entry(action="ALLOW")], "syscalls[1] action is 'ALLOW'", "use one of SCMP_ACT_KILL"),
    ("action of a wrong type", [entry(action=["SCMP_ACT_ALLOW"])], "syscalls[1] action", "use one of"),
    ("unknown operator", [entry(args=[ARG, {**ARG, "op": "=="}])], "syscalls[1] args[1] op is '=='", "SCMP_CMP_MASKED_EQ"),
    ("operator of a wrong type", [entry(args=[{**ARG, "op": []}])], "syscalls[1] args[0] op is []", "use one of"),
    ("value as text", [entry(args=[{**ARG, "value": "1"}])], "syscalls[1] args[0] value is '1'", "write an integer"),
    ("value as float", [entry(args=[{**ARG, "value": 1.0}])], "args[0] value is 1.0", "write an integer"),
    ("value too great", [entry(args=[{**ARG, "value": 2**64}])], "args[0] value", "from 0 to 18446744073709551615"),
    ("no index", [entry(args=[{"op": "SCMP_CMP_EQ", "value": 1}])], "args[0] index is None", "from 0 to 5"),
    ("args as object", [entry(args=ARG)], "syscalls[1] args is", "write a list"),
    ("names as text", [entry(names="read")], "syscalls[1] names is 'read'", "write a list"),
    ("entry is a text", ["read"], "syscalls[1] is 'read'", "write an object"),
    ("includes as list", [entry(includes=[])], "syscalls[1] includes is []", "write an object"),
    ("empty kernel", [entry(includes={"minKernel": ""})], "includes kernel version ''", "write it as in '5.13'"),
    ("kernel in other digits", [entry(includes={"minKernel": "\u0664.8"})], "includes kernel version", "write it as in"),
    ("unknown errno", [entry(action="SCMP_ACT_ERRNO", errno="ENOPE")], "errno is 'ENOPE'", "a name of errno.h"),
    ("two errnos", [entry(action="SCMP_ACT_ERRNO", errno="EPERM", errnoRet=38)], "errno is EPERM (1)", "remove one"),
    ("comment as number", [entry(comment=3)], "syscalls[1] comment is 3", "write a text"),
    ("unobserved without a why", [entry(unobserved={"read": {}})], "unobserved read has no why", "write the reason"),
    ("unobserved of another call", [entry(unobserved={"open": {"why": "x"}})], "unobserved has unknown key 'open'", "known are read"),
    ("guide", [], "it lacks brk,", "allow them, or copy strict.json"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "place", "remedy"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_file_is_refused_with_its_name_the_place_and_the_remedy(
    content: Any, place: str, remedy: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    if isinstance(content, list):
        content = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry(names=["write"]), *content]})
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProfileError) as refused:
        profile.load(path, machine="x86_64")
    said = str(refused.value)
    assert str(path) in said and place in said and remedy in said and "\n" not in said and len(said) < 900, said
    script = tmp_path / "worker.py"
    script.write_text("raise SystemExit('must not be started')\n")
    with pytest.raises(ConfigError) as seen:  # and the same through the public door, before anything is started
        Pool(script, workers=1, sandbox=Sandbox(profile=str(path)))
    assert str(path) in str(seen.value) and place in str(seen.value) and remedy in str(seen.value)


def test_file_that_cannot_be_read_or_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere.json' cannot be read \(No such file or directory\): use strict"):
        profile.load(tmp_path / "nowhere.json")
    (tmp_path / "long.json").write_bytes(b" " * (4 << 20) + b"{}")
    with pytest.raises(ProfileError, match="longer than 4194304 bytes"):
        profile.load(tmp_path / "long.json")


JUNK: list[Any] = [None, True, 0, -1, 2**70, 1.5, float("inf"), "", "x", "SCMP_ACT_ALLOW", [], [None], {}, {"a": 1}, "\ud800", [[]]]


def mutated(rng: random.Random, value: Any) -> Any:
    """A copy with one node, anywhere, replaced, removed or given a strange key."""
    found = copy.deepcopy(value)
    node, spot = {"root": found}, "root"
    held: Any = node
    while isinstance(held[spot], (dict, list)) and held[spot] and rng.random() < 0.85:
        held = held[spot]
        spot = rng.choice(list(held)) if isinstance(held, dict) else rng.randrange(len(held))
    if isinstance(held, dict) and held is not node and rng.random() < 0.3:
        held[rng.choice(["x", "op", "action", ""])] = held.pop(spot)
    else:
        held[spot] = rng.choice(JUNK)
    return node["root"]


@pytest.mark.parametrize("name", ENGINES)
def test_mutated_profile_is_read_or_refused_and_nothing_else(name: str) -> None:
    rng, raw = random.Random(SEED), json.loads((VECTORS / f"{name}-default.json").read_text())
    raw["syscalls"] = raw["syscalls"][1:]  # the long list of names: a node of it is met too often
    refused = 0
    for turn in range(1000):
        text = json.dumps(mutated(rng, raw))
        try:
            seccomp.compile_profile(oci.parse(text, machine="x86_64", kernel=(6, 1)))
        except ProfileError as error:
            refused += 1
            assert 20 < len(str(error)) < 900 and "\n" not in str(error), f"seed {SEED}, turn {turn}: {error}"
    assert 300 < refused < 1000
