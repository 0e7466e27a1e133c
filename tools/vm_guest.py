"""Runs inside the virtual machine: tries pyproc on its kernel and writes one JSON document to a serial port.

```
vm_guest.py DEVICE            everything; starts itself again, in other units, for
vm_guest.py limits            a pool meets the limits of its control groups, as whoever started it
vm_guest.py confined          a pool answers under the profile that its supervisor runs under
```

Rules: what a check saw stands beside its verdict; a check that raises has failed and says why; the next one is tried all the
same. Standard library and pyproc only. A command that may hang is bounded.
"""

from __future__ import annotations

import io
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SITE, SCRIPT, PROFILE = "/opt/site", "/opt/vm/worker.py", "/run/pyproc.apparmor"
USER = 41234
PYTHON = "/usr/bin/python3"
PYPROC = f"{PYTHON} -m pyproc"
SELF = f"{PYTHON} {os.path.abspath(__file__)}"
GROUPS, MEMORY, TASKS, CPUS = "/sys/fs/cgroup", 128 << 20, 33, 0.5  # tasks: 16 threads, 1 process, 16 beyond them
SECONDS = 3000  # one command; the corpus needs many minutes on an emulated processor
LEAF = "/run/vm/leaf"  # a file, as systemd itself expands the $ of a command line
INTO_A_LEAF = """\
g=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
mkdir $g/pyproc-supervisor && echo $$ > $g/pyproc-supervisor/cgroup.procs && exec "$@"
"""
NEWER = {"mdwe": (6, 3)}  # layers that an older kernel lacks, which is then what doctor has to say
WORKER = """
import os, threading, time
from pyproc_worker import expose
held = []

@expose
def double(number: int) -> int:
    return 2 * number

@expose
def fill() -> None:
    while True:
        held.append(bytearray(1 << 22))

@expose
def spread() -> int:
    over = threading.Event()
    try:
        for count in range(200):
            threading.Thread(target=over.wait, daemon=True).start()
    except RuntimeError:
        return count
    finally:
        over.set()
    return 200

@expose
def leave(status: int) -> None:
    os._exit(status)

@expose
def compute(seconds: float) -> float:
    began = time.monotonic()
    while time.process_time() < seconds:
        pass
    return time.monotonic() - began
"""
Check = tuple[bool, str]


def start(command: str, *properties: str, user: bool = False, leaf: bool = False, profile: str = "") -> tuple[int, str, str]:
    """Run a command in a unit of its own; `leaf`: with a delegated subtree, and moved into a leaf of it before `profile`."""
    unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--working-directory=/run/vm", f"--setenv=PYTHONPATH={SITE}"]
    if leaf:
        properties = ("Delegate=yes", *properties)
    if profile:
        command = f"aa-exec -p {profile} -- {command}"
    if user:
        properties = (f"User={USER}", f"Group={USER}", *properties)
    return run([*unit, *(f"-p{one}" for one in properties), *(["sh", LEAF] if leaf else []), *shlex.split(command)])


def run(arguments: list[str], **variables: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error)."""
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS,
                          check=False, env={**os.environ, **variables})
    return done.returncode, done.stdout, done.stderr


def document(answer: tuple[int, str, str]) -> dict[str, Any]:
    """The JSON document that a command wrote. Raises ValueError with what it wrote instead."""
    status, out, err = answer
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError as error:
        raise ValueError(f"exit {status}: {(out + err).strip()[-700:]}") from error
    return found


def release() -> tuple[int, ...]:
    """The kernel's version, of two numbers."""
    return tuple(map(int, re.findall(r"\d+", platform.release())[:2]))


def kernel() -> Check:
    """AppArmor is on, control groups are of version 2 alone, systemd is pid 1."""
    modules = Path("/sys/kernel/security/lsm").read_text()
    kinds = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()} & {"cgroup", "cgroup2"}
    first = Path("/proc/1/comm").read_text().strip()
    return "apparmor" in modules and kinds == {"cgroup2"} and first == "systemd", f"lsm {modules}; {', '.join(kinds)}; pid 1 {first}"


def lacking() -> set[str]:
    """The layers that this kernel is too old for."""
    return {name for name, needed in NEWER.items() if release() < needed}


def layers(found: dict[str, Any], *, group: bool) -> Check:
    """Every layer that this kernel has is attested on a started worker, and the control group if it was delegated."""
    (pool,) = found["pools"].values()
    missing = {name for name, layer in pool["layers"].items() if layer["state"] != "enforced"}
    expected = lacking() | (set() if group else {"cgroup"})
    told = "; ".join(f"{name}: {pool['layers'][name]['detail']}" for name in sorted(missing))
    return missing == expected and pool["measured"] == "pool", f"{len(pool['layers']) - len(missing)} of {len(pool['layers'])}; {told}"


def doctor(*, user: bool, leaf: bool) -> Check:
    """`pyproc doctor` in a unit."""
    return layers(document(start(f"{PYPROC} doctor --json", user=user, leaf=leaf)), group=leaf)


def remedy(*, user: bool) -> Check:
    """The line that doctor prints here, for a systemd of this version, gives whoever runs it the control group."""
    (pool,) = document(start(f"{PYPROC} doctor --json", user=user))["pools"].values()
    line = pool["layers"]["cgroup"]["remedy"].split("with an older systemd: ")[1].replace("COMMAND", f"{PYPROC} doctor --json")
    run(["systemctl", "start", f"user@{USER}.service"])
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if user else []
    return layers(document(run([*become, "sh", "-c", f"cd /run/vm && {line}"], XDG_RUNTIME_DIR=f"/run/user/{USER}", PYTHONPATH=SITE)),
                  group=True)


def attack(found: dict[str, Any], *, controls: bool) -> Check:
    """Nothing of the corpus escaped, and open is what an older kernel cannot stop alone; with controls each attack was shown to work
    without a sandbox."""
    if "attacks" not in found:
        return False, f"{found}"[:1000]
    told = [one for one in found["attacks"] if one["verdict"] in ("escaped", "open") or (controls and one["verdict"] == "unproven")]
    bad = [one for one in told if one["verdict"] != "open" or not set(one["layers"]) <= lacking()]
    counted = ", ".join(f"{count} {name}" for name, count in found["verdicts"].items() if count)
    rest = "".join(f"; {one['id']} {one['verdict']}, {'+'.join(one['layers'])}: {one['proof']}" for one in told)
    return not bad and not found["secret_seen_by"], f"{counted}; {found['seconds']:.0f} s{rest}"


def attacked(*, user: bool) -> Check:
    """The whole corpus under `strict`, with controls, in a delegated subtree."""
    return attack(document(start(f"{PYPROC} attack --json", user=user, leaf=True)), controls=True)


def limits() -> dict[str, list[Any]]:
    """In a delegated subtree: what a pool tells of a limit that is met, and what the kernel counted."""
    from pyproc import Limits, Pool, WorkerLost

    def group(pool: Pool) -> Path:
        pid = pool.status()["workers"][0]["pid"]
        return Path(GROUPS + Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::"))

    def memory() -> Check:
        with Pool(SCRIPT, limits=Limits(memory=MEMORY)) as pool:
            folder = group(pool)
            bounds = [(folder / f"memory.{name}").read_text().strip() for name in ("max", "swap.max", "oom.group")
                      if (folder / f"memory.{name}").exists()]
            try:
                pool.call("fill", timeout=100)
            except WorkerLost as error:
                answer, deaths = pool.call("double", 21, timeout=100), pool.status()["deaths"]
                return (error.reason, answer, deaths, bounds[0]) == ("oom", 42, {"oom": 1}, str(MEMORY)), \
                    f"worker_lost ({error.reason}), memory.max, swap.max, oom.group {bounds}, the next call answered"
        return False, "it was not ended"

    def pids() -> Check:  # a worker's RLIMIT_NPROC is met first; the group holds what it may have in all
        with Pool(SCRIPT, limits=Limits(memory="8 GiB")) as pool:
            bound = (group(pool) / "pids.max").read_text().strip()
            threads = pool.call("spread", timeout=100)
            good = pool.call("double", 21, timeout=100) == 42
            told = f"{threads} threads were started, pids.max {bound}, the next call answered"
            return good and bound == str(TASKS) and threads < TASKS, told

    def cpu() -> Check:
        with Pool(SCRIPT, limits=Limits(cpus=CPUS)) as pool:
            folder = group(pool)
            pool.call("double", 1, timeout=100)
            seconds = pool.call("compute", 4.0, timeout=200)
            counted = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
            bound, throttled = (folder / "cpu.max").read_text().strip(), int(counted["nr_throttled"])
            return throttled > 0, f"cpu.max {bound}, about 4 s of computing took {seconds:.1f} s, throttled in {throttled} periods"

    def status() -> Check:  # what a kernel without PIDFD_GET_INFO tells of a process that is not a child of ours
        with Pool(SCRIPT) as pool:
            try:
                pool.call("leave", 3, timeout=100)
            except WorkerLost as error:
                return error.reason == "exit:3", f"worker_lost ({error.reason})"
        return False, "it did not end"

    logged = io.StringIO()
    logging.basicConfig(stream=logged, level=logging.INFO)
    found = {check.__name__: list(tried(check)) for check in (memory, pids, cpu, status)}
    for told in found.values():
        told[1] += "" if told[0] else f"; logged: {logged.getvalue()}"
    return found


def limited(*, user: bool) -> dict[str, list[Any]]:
    """`limits` in a unit."""
    return document(start(f"{SELF} limits", user=user, leaf=True))


def load() -> Check:
    """The exported profile is compiled and loaded."""
    status, text, err = start(f"{PYPROC} policy export --format apparmor --worker {SCRIPT}")
    if status:
        return False, err
    Path(PROFILE).write_text(text)
    status, _, err = run(["apparmor_parser", "--replace", "--skip-cache", PROFILE])
    loaded = [line for line in Path("/sys/kernel/security/apparmor/profiles").read_text().splitlines() if line.startswith("pyproc")]
    return not status and loaded == ["pyproc (enforce)", "pyproc//worker (enforce)"], f"{', '.join(loaded)} {err}".strip()


def refuses() -> Check:
    """The profile of workers refuses, by itself, root a file that it does not list."""
    read = f"{PYTHON} -I -S -c \"open('/etc/hostname')\""
    free, confined = start(read)[0], start(read, profile="pyproc//worker")
    told = confined[2].strip().splitlines()[-1:]
    return free == 0 and confined[0] == 1 and "Permission denied" in "".join(told), f"without it {free}, with it: {''.join(told)}"


def confined() -> dict[str, Any]:
    """Under the profile `pyproc`: a good call, and the profile of each process of the tree."""
    from pyproc import Pool

    with Pool(SCRIPT, workers=2) as pool:
        status = pool.status()
        pids = [*status["zygotes"], *(worker["pid"] for worker in status["workers"])]
        return {"answer": pool.call("double", 21, timeout=100), "own": Path("/proc/self/attr/current").read_text().strip(),
                "tree": [Path(f"/proc/{pid}/attr/current").read_text().strip() for pid in pids],
                "layers": [name for name, layer in status["layers"].items() if layer["state"] != "enforced"]}


def answers(*properties: str, user: bool, leaf: bool = True) -> Check:
    """A pool under the loaded profile answers, each of its processes is confined, nothing it did was refused."""
    before = len(denials())
    found = document(start(f"{SELF} confined", *properties, user=user, leaf=leaf, profile="pyproc" if leaf else ""))
    good = found["answer"] == 42 and found["own"] == "pyproc (enforce)" and set(found["tree"]) == {"pyproc//worker (enforce)"}
    lost = set(found["layers"]) - set(NEWER) - (set() if leaf else {"cgroup"})
    denied = denials()[before:]
    return good and not lost and not denied, f"{found}" + "".join(f"; {line}" for line in denied)


def denials() -> list[str]:
    """What AppArmor refused, as the kernel logged it."""
    _, text, _ = run(["dmesg"])
    return [line[line.index("apparmor="):] for line in text.splitlines() if 'apparmor="DENIED"' in line and 'profile="pyproc' in line]


def attacked_under_the_profile(*, user: bool) -> Check:
    """The corpus again, without controls: they would have to break out of the profile. The supervisor's part is opened, as it makes
    the targets, listeners of TCP among them; the workers' is as it was exported."""
    loaded, told = load()
    if not loaded:
        return False, told
    exported = Path(PROFILE).read_text()
    supervisor, worker = exported.split("  profile worker ")
    opened = re.sub(r"  deny network \w+,\n", "", supervisor) + "  network,\n  capability,\n  /** rwkl,\n"
    Path(PROFILE).write_text(f"{opened}\n  profile worker {worker}")
    status, _, err = run(["apparmor_parser", "--replace", "--skip-cache", PROFILE])
    if status:
        return False, err
    command = f"{PYPROC} attack --json --no-controls"
    return attack(document(start(command, user=user, leaf=True, profile="pyproc")), controls=False)


CHECKS: dict[str, Callable[[], Check | dict[str, list[Any]]]] = {
    "kernel": kernel,
    "layers, root": lambda: doctor(user=False, leaf=False),
    "layers, root, delegated": lambda: doctor(user=False, leaf=True),
    "layers, user": lambda: doctor(user=True, leaf=False),
    "layers, user, delegated": lambda: doctor(user=True, leaf=True),
    "layers, root, by doctor's remedy": lambda: remedy(user=False),
    "layers, user, by doctor's remedy": lambda: remedy(user=True),
    "limits, root": lambda: limited(user=False),
    "limits, user": lambda: limited(user=True),
    "AppArmor, load": load,
    "AppArmor, refusal": refuses,
    "AppArmor, call, root": lambda: answers(user=False),
    "AppArmor, call, user": lambda: answers(user=True),
    "AppArmor, call, user, by the unit": lambda: answers("AppArmorProfile=pyproc", user=True, leaf=False),
    "AppArmor, attack, user": lambda: attacked_under_the_profile(user=True),
    "attack, user": lambda: attacked(user=True),
    "attack, root": lambda: attacked(user=False),
}


def tried(check: Callable[[], Any]) -> Any:
    """What a check answers; what it raises is a failure."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is the report
        return False, f"{type(error).__name__}: {error}"


def main(device: str) -> None:
    """Run the checks, and write the document."""
    os.makedirs("/run/vm", exist_ok=True)
    os.chmod("/run/vm", 0o755)  # noqa: S103 - both users start there
    Path(SCRIPT).write_text(WORKER)
    Path(LEAF).write_text(INTO_A_LEAF)
    run([PYTHON, "-m", "compileall", "-q", SITE])
    results: dict[str, list[Any]] = {}
    only = re.findall(r"vm-test\.only=(\S+)", Path("/proc/cmdline").read_text())
    for name, check in CHECKS.items():
        if only and only[0] not in name:
            continue
        began = time.monotonic()
        found = tried(check)
        more = {f"{name}, {part}": told for part, told in found.items()} if isinstance(found, dict) else {name: found}
        for title, (passed, detail) in more.items():
            results[title] = [passed, detail, round(time.monotonic() - began)]
            print(title, passed, detail, flush=True)
    report = {"kernel": platform.release(), "machine": platform.machine(), "version": platform.version(),
              "python": platform.python_version(),
              "systemd": run(["systemctl", "--version"])[1].split()[1], "checks": results, "denied": denials()}
    Path(device).write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    parts = {"limits": limits, "confined": confined}
    if sys.argv[1] in parts:
        print(json.dumps(parts[sys.argv[1]]()))
    else:
        main(sys.argv[1])
