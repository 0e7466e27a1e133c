"""A kernel without a feature: its system calls are really refused, to a host process and to all that it starts.

    test -- this file, run as a program --> host: loads an outer seccomp filter, then makes pools and asks the doctor
         <------ one JSON document ------- what became of each

The filter is compiled by the project's own compiler. A control group that cannot be written is a read-only mount in a
mount namespace of the host's own; an unprivileged uid has none anyway. There root's interpreter is put within reach of its
workers' uids too, as it is without mounts that they meet it. An outer filter counts in the attestation too: a pool that serves here
has told it from the sandbox's own.

What a missing feature opens is shown by the escape corpus in the same host: every attack is stopped, or is said to be open
because nothing that stops it is in force. `make soak` runs all of it, the suite the attacks that the missing layer alone stops.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyproc import Pool, ProtectionUnavailable, PyprocError, Sandbox
from pyproc.attack import corpus as catalogue
from pyproc.attack import run as running
from pyproc.attack.report import UNDONE, Report
from pyproc.attack.targets import Targets
from pyproc.cli import program
from pyproc.sandbox import oci, plan, seccomp
from pyproc_worker.jail import libc
from pyproc_worker.jail import seccomp as loader

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("subject.py")
EPERM, EBUSY, EINVAL, ENOSYS = 1, 16, 22, 38
PR_SET_NO_NEW_PRIVS = 38
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


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
    from view import KERNEL, must

    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        if " - cgroup" in line:
            must(KERNEL.mount(None, line.split()[4].encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY, None), "read-only")


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
    with contextlib.redirect_stdout(io.StringIO()) as told:
        status = program.run(["doctor", "--json", *arguments])
    return {"status": status, **json.loads(told.getvalue())}


def corpus(order: dict[str, Any]) -> dict[str, Any]:
    """What the escape corpus, or the named attacks of it, comes to under `layers`."""
    attacks = [attack for attack in catalogue.load() if not order["attacks"] or attack.id in order["attacks"]]
    states: dict[str, Any] = {}

    def make(script: Any, env: Any, **options: Any) -> Pool:
        pool = Pool(script, sandbox=Sandbox(layers=order["layers"]), env=dict(env), timeout=running.CALL_SECONDS, **options)
        states.update(pool.status()["layers"])
        return pool

    with Targets() as targets:
        results = list(running.run_corpus(make, targets, attacks, at_import=not order["attacks"]))
    lacking = {name: state["state"] for name, state in states.items() if state["state"] != "enforced"}
    report = Report(attacks, results, profile="strict", controls=False, lacking=lacking)
    return {row.attack.id: [row.verdict, row.proof, dict(row.answers)] for row in report.rows}


def main() -> None:
    asked = json.loads(sys.argv[1])
    if os.geteuid() == 0:
        import view

        view.of_its_own()
        view.open_the_way()
    if asked["close_groups"]:
        close_groups()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": asked["rules"]}
    loader.load(seccomp.compile_profile(oci.parse(json.dumps(rules))))
    if asked.get("corpus"):
        print(json.dumps(corpus(asked["corpus"])))
        return
    before = left()
    pools = {name: outcome(layers) for name, layers in asked["pools"].items()}
    found = {"pools": pools, "before": before, "after": left()}
    print(json.dumps({**found, "doctor": doctor(asked["doctor"])} if asked["doctor"] else found))


# -- the tests -----------------------------------------------------------------------------------------------------------


@functools.cache
def host(feature: str) -> dict[str, Any]:
    """What became of three pools where `feature` is missing: its layer is required, preferred and off."""
    layer, rules = FEATURES[feature]
    return ask(rules, {wanted: {layer: wanted} for wanted in ("require", "prefer", "off")}, ["--layer", f"{layer}=require"],
               close=feature == "writable groups")


def ask(
    rules: list[dict[str, Any]], pools: dict[str, Any], arguments: list[str] | None = None, *, close: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What became of these pools where `rules` hold, and what the doctor says with these arguments, if it is asked."""
    asked = {"rules": rules, "pools": pools, "doctor": arguments, "close_groups": close}
    run = subprocess.run([sys.executable, __file__, json.dumps(asked)], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    assert answer["before"] == answer["after"], "children, descriptors or control groups are left"
    return answer


@pytest.mark.parametrize("feature", FEATURES)
def test_a_required_layer_that_is_missing_refuses_the_pool(feature: str) -> None:
    layer, pool = FEATURES[feature][0], host(feature)["pools"]["require"]
    assert pool.get("layer") == layer and layer in pool["refused"], pool
    assert pool["remedy"] and pool["remedy"] in pool["refused"]


@pytest.mark.parametrize("feature", FEATURES)
def test_a_preferred_layer_that_is_missing_is_reported_and_the_rest_serves(feature: str) -> None:
    layer, pool = FEATURES[feature][0], host(feature)["pools"]["prefer"]
    assert "served" in pool, pool
    state = pool["layers"][layer]
    assert state["state"] == "missing" and state["wanted"] == "prefer" and state["detail"]
    assert pool["served"][0] == 1 and pool["served"][1].startswith("stopped") and pool["served"][2] == 2
    assert pool["deaths"] == {"exit:3": 1}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_layer_that_is_off_is_not_asked_for(feature: str) -> None:
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
    pool = ask(HARMLESS, {"pool": {}})["pools"]["pool"]
    assert pool["served"][2] == 2 and pool["deaths"] == {"exit:3": 1}
    assert {name for name, layer in pool["layers"].items() if layer["state"] != "enforced"} <= {"cgroup"}


def test_no_file_system_wall_is_a_refusal_although_both_are_only_preferred() -> None:
    pool = ask([MOUNTS, LANDLOCK], {"pool": {}})["pools"]["pool"]
    assert pool.get("layer") in plan.FILESYSTEM_WALLS, pool


@pytest.mark.parametrize(("off", "rule"), [("landlock", MOUNTS), ("mount_namespace", LANDLOCK)])
def test_one_wall_off_and_the_other_missing_is_a_refusal(off: str, rule: dict[str, Any]) -> None:
    pool = ask([rule], {"pool": {off: "off"}})["pools"]["pool"]
    assert pool.get("layer") in plan.FILESYSTEM_WALLS, pool


def test_without_close_range_a_pool_still_starts() -> None:
    pools = ask([refused(ENOSYS, "close_range")], {"prefer": {"descriptors": "prefer"}, "off": {"descriptors": "off"}})["pools"]
    assert [pool.get("served", pool)[-1] for pool in pools.values()] == [2, 2], pools


# Where a feature is missing, the attacks that nothing else stops: they are open, and the report says so.
NAMESPACES = frozenset(f"namespaces.host-{kind}" for kind in ("user", "pid", "network", "ipc", "uts", "cgroup", "mount"))
OPEN = {
    "user namespaces": NAMESPACES | {"namespaces.host-name", "files.stat-secret"},
    "mounts": frozenset({"namespaces.host-mount", "files.stat-secret"}),
    "landlock": frozenset[str](),
    "writable groups": frozenset[str](),
    "seccomp listeners": None,  # all that only seccomp stops: some fifty, which is why the layer is required unless one says otherwise
}
SAMPLE = frozenset({  # of the attacks that several layers stop, from each kind of wall
    "abi.make-executable", "credentials.become-root", "files.read-secret", "files.create-outside", "ipc.shared-memory", "links.symlink",
    "namespaces.tmpfs", "processes.kill", "resources.descriptors", "sockets.tcp-connect", "sockets.unix-path", "startup.host-module",
    "terminal.pseudo", "tracing.read-memory", "tracing.proc-environment"})
WHOLE = "PYPROC_SOAK" in os.environ


def played(feature: str, attacks: list[str]) -> dict[str, Any]:
    """Attack -> verdict, proof and answers in a host without the feature."""
    layer, rules = FEATURES[feature]
    order = {"rules": rules, "pools": {}, "doctor": [], "close_groups": feature == "writable groups",
             "corpus": {"attacks": attacks, "layers": {layer: "prefer"}}}
    run = subprocess.run([sys.executable, __file__, json.dumps(order)], capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.timeout(500)
@pytest.mark.parametrize("feature", OPEN)
def test_a_lower_tier_stops_the_corpus_or_says_what_is_open(feature: str) -> None:
    expected = OPEN[feature]
    attacks = {attack.id: attack for attack in catalogue.load() if attack.fits_this_machine}
    if expected is None:
        expected = frozenset(id for id, attack in attacks.items() if {*attack.layers} <= {"seccomp", *UNDONE})
        asked = [] if WHOLE else sorted(SAMPLE | {"credentials.add-key", "tracing.dumpable", "sockets.packet-filter"})
    else:
        asked = [] if WHOLE else sorted(SAMPLE | expected)
    found = played(feature, asked)
    for id, (verdict, proof, answers) in found.items():
        assert verdict in ("stopped", "granted", "open", "unfit"), (id, answers)
        if verdict == "open":
            assert id in expected and " is missing" in proof, (id, proof)
    opened = {id for id, (verdict, _, _) in found.items() if verdict == "open"}
    assert opened <= expected
    if feature != "seccomp listeners":  # what one worker can do there depends on what another attack has undone before
        assert opened == expected


if __name__ == "__main__":
    main()
