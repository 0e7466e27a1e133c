"""A kernel without a feature: its system calls are really refused, to a host process and to all that it starts.

    test -- this file, run as a program --> host: loads an outer seccomp filter, then makes pools and asks the doctor
         <------ one JSON document ------- what became of each

The filter is compiled by the project's own compiler. A control group that cannot be written is a read-only mount in a
mount namespace of the host's own; an unprivileged uid has none anyway. An outer filter counts in the attestation too: a
pool that serves here has told it from the sandbox's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyproc
from pyproc import Pool, ProtectionUnavailable, PyprocError, Sandbox
from pyproc.sandbox import oci, plan, seccomp
from pyproc_worker.jail import libc
from pyproc_worker.jail import seccomp as loader

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("subject.py")
EPERM, EBUSY, EINVAL, ENOSYS = 1, 16, 22, 38
PR_SET_NO_NEW_PRIVS, CLONE_NEWNS = 38, 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def refused(errno: int, *names: str, argument: int = 0, flag: int = 0, value: int = 0) -> dict[str, Any]:
    """A rule of a profile: these calls, with `flag` among or `value` as an argument if one is named, fail with `errno`."""
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
    if flag:
        rule["args"] = [{"index": argument, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]
    elif value:
        rule["args"] = [{"index": argument, "value": value, "op": "SCMP_CMP_EQ"}]
    return rule


HARMLESS = [refused(EPERM, "acct")]
MOUNTS = refused(EPERM, "mount", "pivot_root", "mount_setattr", "open_tree", "move_mount")
LANDLOCK = refused(ENOSYS, "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
FEATURES: dict[str, tuple[str, list[dict[str, Any]]]] = {  # what is missing -> the layer that needs it, what is refused
    "user namespaces": ("user_namespace", [refused(EPERM, "unshare", "clone", flag=0x10000000)]),
    "pid namespaces": ("pid_namespace", [refused(EPERM, "unshare", "clone", flag=0x20000000)]),
    "network namespaces": ("network_namespace", [refused(EINVAL, "unshare", "clone", flag=0x40000000)]),
    "mounts": ("mount_namespace", [MOUNTS]),
    "landlock": ("landlock", [LANDLOCK]),
    "seccomp listeners": ("seccomp", [refused(EBUSY, "seccomp", argument=1, flag=8)]),
    "pidfd_getfd": ("seccomp", [refused(EPERM, "pidfd_getfd")]),
    "mdwe": ("mdwe", [refused(EINVAL, "prctl", value=65)]),
    "dumpable": ("dumpable", [refused(EPERM, "prctl", value=4)]),
    "writable groups": ("cgroup", HARMLESS),
}


# -- the host ------------------------------------------------------------------------------------------------------------


def close_groups() -> None:
    """Have no writable control group: as root by read-only mounts, else there is none."""
    if os.geteuid() != 0:
        return
    kernel = ctypes.CDLL(None, use_errno=True)

    def must(result: int, what: str) -> None:
        if result:
            raise OSError(ctypes.get_errno(), what)

    must(kernel.unshare(CLONE_NEWNS), "unshare")
    must(kernel.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        if " - cgroup" in line:
            must(kernel.mount(None, line.split()[4].encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY, None), "read-only")


def left() -> list[int]:
    """How many children, descriptors and control groups this process has."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    groups = glob.glob(f"/sys/fs/cgroup/**/pyproc-*-{os.getpid()}-*-*", recursive=True)
    return [len(children), len(os.listdir("/proc/self/fd")), len(groups)]


def outcome(layers: dict[str, str]) -> dict[str, Any]:
    """What a pool with these layers becomes: it serves, or it is refused with what text."""
    try:
        with Pool(SCRIPT, sandbox=Sandbox(layers=layers), env={"NO_IMPORT_ATTACKS": "1"}) as pool:
            answers = [pool.call("echo", 1), pool.call("attack", "passwd")]
            with contextlib.suppress(PyprocError):
                pool.call("die_by", 3)
            answers.append(pool.call("echo", 2))
            status = pool.status()
        return {"served": answers, "layers": status["layers"], "deaths": status["deaths"]}
    except ProtectionUnavailable as error:
        return {"refused": str(error), "layer": error.layer, "remedy": error.remedy}
    except PyprocError as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def doctor(arguments: list[str]) -> dict[str, Any]:
    run = subprocess.run([sys.executable, "-m", "pyproc", "doctor", "--json", *arguments], capture_output=True, text=True,
                         timeout=50, check=False)
    return {"status": run.returncode, **json.loads(run.stdout)}


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked["close_groups"]:
        close_groups()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": asked["rules"]}
    loader.load(seccomp.compile_profile(oci.parse(json.dumps(rules))))
    before = left()
    pools = {name: outcome(layers) for name, layers in asked["pools"].items()}
    print(json.dumps({"pools": pools, "before": before, "after": left(), "doctor": doctor(asked["doctor"])}))


# -- the tests -----------------------------------------------------------------------------------------------------------


@functools.cache
def host(feature: str) -> dict[str, Any]:
    """What became of three pools where `feature` is missing: its layer is required, preferred and off."""
    layer, rules = FEATURES[feature]
    return ask(rules, {wanted: {layer: wanted} for wanted in ("require", "prefer", "off")}, ["--layer", f"{layer}=require"],
               close=feature == "writable groups")


def ask(rules: list[dict[str, Any]], pools: dict[str, Any], arguments: list[str], *, close: bool = False) -> dict[str, Any]:
    asked = {"rules": rules, "pools": pools, "doctor": arguments, "close_groups": close}
    run = subprocess.run([sys.executable, __file__, json.dumps(asked)], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    assert answer["before"] == answer["after"], "children, descriptors or control groups are left"
    return answer


def needs_reach(feature: str) -> None:
    """Without mounts a worker of root opens the interpreter's files as its own uid."""
    if os.geteuid() != 0 or feature not in ("user namespaces", "pid namespaces", "mounts"):
        return
    for place in (Path(sys.base_prefix), Path(pyproc.__file__)):
        closed = [str(folder) for folder in place.resolve().parents if not folder.stat().st_mode & 1]
        if closed:
            pytest.skip(f"needs the layer mount_namespace: only with mounts a worker reaches {place} below {closed[0]}")


@pytest.mark.parametrize("feature", FEATURES)
def test_a_required_layer_that_is_missing_refuses_the_pool(feature: str) -> None:
    layer, pool = FEATURES[feature][0], host(feature)["pools"]["require"]
    assert pool.get("layer") == layer and layer in pool["refused"], pool
    assert pool["remedy"] and pool["remedy"] in pool["refused"]


@pytest.mark.parametrize("feature", FEATURES)
def test_a_preferred_layer_that_is_missing_is_reported_and_the_rest_serves(feature: str) -> None:
    needs_reach(feature)
    layer, pool = FEATURES[feature][0], host(feature)["pools"]["prefer"]
    assert "served" in pool, pool
    state = pool["layers"][layer]
    assert state["state"] == "missing" and state["wanted"] == "prefer" and state["detail"]
    assert pool["served"][0] == 1 and pool["served"][1].startswith("stopped") and pool["served"][2] == 2
    assert pool["deaths"] == {"exit:3": 1}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_layer_that_is_off_is_not_asked_for(feature: str) -> None:
    needs_reach(feature)
    layer, pool = FEATURES[feature][0], host(feature)["pools"]["off"]
    assert "served" in pool, pool
    assert pool["layers"][layer]["state"] == pool["layers"][layer]["wanted"] == "off"
    assert pool["served"][2] == 2


@pytest.mark.parametrize("feature", FEATURES)
def test_the_doctor_names_the_missing_layer_and_the_remedy(feature: str) -> None:
    layer, found = FEATURES[feature][0], host(feature)["doctor"]
    assert found["status"] == ProtectionUnavailable.exit_code and layer in found["refusal"]
    assert found["layers"][layer]["state"] == "missing"
    assert found["layers"][layer]["detail"] and found["layers"][layer]["remedy"]


def test_an_outer_filter_is_told_from_our_own() -> None:
    pool = ask(HARMLESS, {"pool": {}}, [])["pools"]["pool"]
    assert pool["served"][2] == 2 and pool["deaths"] == {"exit:3": 1}
    assert {name for name, layer in pool["layers"].items() if layer["state"] != "enforced"} <= {"cgroup"}


def test_no_file_system_wall_is_a_refusal_although_both_are_only_preferred() -> None:
    pool = ask([MOUNTS, LANDLOCK], {"pool": {}}, [])["pools"]["pool"]
    assert pool.get("layer") in plan.FILESYSTEM_WALLS, pool


@pytest.mark.parametrize(("off", "rule"), [("landlock", MOUNTS), ("mount_namespace", LANDLOCK)])
def test_one_wall_off_and_the_other_missing_is_a_refusal(off: str, rule: dict[str, Any]) -> None:
    pool = ask([rule], {"pool": {off: "off"}}, [])["pools"]["pool"]
    assert pool.get("layer") in plan.FILESYSTEM_WALLS, pool


def test_without_close_range_a_pool_still_starts() -> None:
    pools = ask([refused(ENOSYS, "close_range")], {"prefer": {"descriptors": "prefer"}, "off": {"descriptors": "off"}}, [])["pools"]
    assert [pool.get("served", pool)[-1] for pool in pools.values()] == [2, 2], pools


if __name__ == "__main__":
    main()
