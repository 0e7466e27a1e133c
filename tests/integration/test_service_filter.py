"""Workers really start under the system call filter of the exported unit, and under the other filters that it makes systemd load.

    test -- this file, run as a program --> host: loads the filters, compiled from the unit's text, then makes a pool
         <------ one JSON document ------- what became of it

systemd turns each of these directives into a seccomp filter of its own (systemd.exec(5)); here they are written as profiles and
compiled by the project's own compiler. The unit does not run as root: where the tests do, what only root does is added.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyproc import Limits, Pool, ProtectionUnavailable, Sandbox
from pyproc.policy import survey, systemd
from pyproc.sandbox import oci, seccomp
from pyproc.sandbox.rules import syscall_table
from pyproc.supervisor.spec import WorkerSpec
from pyproc_worker.jail import libc
from pyproc_worker.jail import seccomp as loader

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("subject.py")
PR_SET_NO_NEW_PRIVS, AF_UNIX, PROT_WRITE_EXEC, PROT_EXEC, SHM_EXEC, EPERM, ENOSYS = 38, 1, 6, 4, 0o100000, 1, 38
ROOT_ONLY = ["setgroups", "setresgid", "setresuid"]
# `systemd-analyze syscall-filter @default`: what an allow list has without naming it
IMPLICIT = [
    "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "execve", "exit", "exit_group", "futex", "get_robust_list",
    "get_thread_area", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getrandom",
    "getresgid", "getresuid", "getrlimit", "getsid", "gettid", "gettimeofday", "getuid", "membarrier", "mmap", "mprotect",
    "munmap", "nanosleep", "pause", "prlimit64", "restart_syscall", "rseq", "rt_sigreturn", "sched_getaffinity", "sched_yield",
    "set_robust_list", "set_thread_area", "set_tid_address", "time",
]


def directives(profile: str) -> dict[str, list[str]]:
    spec = WorkerSpec("pool", "/", "", 1, Sandbox(profile), Limits(), {}, None, (), solo=False)
    unit = systemd.render(survey.anywhere(spec))
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE):
        found.setdefault(key, []).extend(value.split())
    return found


def refusal(names: list[str], *args: dict[str, Any], errno: int = EPERM) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": list(args)}


def bits(index: int, mask: int, want: int) -> dict[str, Any]:
    return {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": want}


def filters(unit: dict[str, list[str]], without: str) -> list[dict[str, Any]]:
    """A profile for each directive that is a filter."""
    allowed = {*unit["SystemCallFilter"], *IMPLICIT, *(ROOT_ONLY if os.geteuid() == 0 else ())} - {without}
    known = syscall_table(os.uname().machine)
    assert unit["SystemCallErrorNumber"] == ["EPERM"]
    found: list[dict[str, Any]] = [{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": sorted(allowed & set(known)), "action": "SCMP_ACT_ALLOW"}]}]
    denied: list[dict[str, Any]] = []
    if unit["MemoryDenyWriteExecute"] == ["yes"]:
        denied += [refusal(["mmap"], bits(2, PROT_WRITE_EXEC, PROT_WRITE_EXEC)),
                   refusal(["mprotect", "pkey_mprotect"], bits(2, PROT_EXEC, PROT_EXEC)),
                   refusal(["shmat"], bits(2, SHM_EXEC, SHM_EXEC))]
    if unit["RestrictAddressFamilies"] == ["AF_UNIX"]:
        denied.append(refusal(["socket"], {"index": 0, "op": "SCMP_CMP_NE", "value": AF_UNIX}))
    if unit["RestrictSUIDSGID"] == ["yes"]:
        denied.append(refusal(["openat2"], errno=ENOSYS))
        places = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "mkdir": 1, "mkdirat": 2, "mknod": 1, "mknodat": 2}
        denied += [refusal([name], bits(place, bit, bit)) for name, place in places.items() if name in known
                   for bit in (0o4000, 0o2000)]
    if unit["LockPersonality"] == ["yes"]:
        denied.append(refusal(["personality"]))
    if unit["RestrictRealtime"] == ["yes"]:
        denied.append(refusal(["sched_setscheduler"], {"index": 1, "op": "SCMP_CMP_NE", "value": 0}))
    found.append({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": denied})
    return found


def main() -> None:
    profile, without, layers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    programs = [seccomp.compile_profile(oci.parse(json.dumps(one))) for one in filters(directives(profile), without)]
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    for program in reversed(programs):
        loader.load(program)
    try:
        with Pool(SCRIPT, workers=2, sandbox=Sandbox(profile, layers=layers), env={"NO_IMPORT_ATTACKS": "1"}) as pool:
            answers = [pool.call("echo", n) for n in range(4)]
            states = {name: layer["state"] for name, layer in pool.status()["layers"].items()}
        print(json.dumps({"answers": answers, "layers": states}))
    except ProtectionUnavailable as error:
        print(json.dumps({"refused": error.layer}))


def ask(profile: str, without: str = "", layers: dict[str, str] | None = None) -> dict[str, Any]:
    run = subprocess.run([sys.executable, __file__, profile, without, json.dumps(layers or {})], capture_output=True, text=True,
                         timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


@pytest.mark.parametrize("profile", ["strict", "default"])
def test_workers_start_under_the_units_filters_with_every_layer(profile: str) -> None:
    told = ask(profile)
    assert told["answers"] == [0, 1, 2, 3]
    assert {name for name, state in told["layers"].items() if state != "enforced"} <= {"cgroup"}


@pytest.mark.parametrize(("without", "layer"), [
    ("mount", "mount_namespace"), ("pivot_root", "mount_namespace"), ("unshare", "user_namespace"), ("seccomp", "seccomp"),
    ("pidfd_getfd", "seccomp"), ("landlock_restrict_self", "landlock"), ("capset", "capabilities"), ("sethostname", "uts_namespace"),
])
def test_a_call_that_is_taken_from_the_list_is_missed(without: str, layer: str) -> None:
    """So that the filters are seen to be in force, and these names to be needed."""
    assert ask("strict", without, {layer: "require"}) == {"refused": layer}


if __name__ == "__main__":
    main()
