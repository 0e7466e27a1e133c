"""From a specification and what the machine grants to the plan that the jail executes. Pure: decides, does not act.

Rules: a required layer that is missing is a refusal that names it; a preferred one is reported as missing and left out;
a layer is never dropped in silence. The plan is plain JSON, as it crosses to a process that has only the standard
library; `pyproc_worker.jail.apply` is its only reader.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pyproc.config.options import Limits, Sandbox
from pyproc.errors import ConfigError, ProtectionUnavailable
from pyproc.sandbox import derive, profile
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.paths import beneath
from pyproc.sandbox.probe import NEEDS
from pyproc.sandbox.rules import Profile, ProfileError

REQUIRED = frozenset({"no_new_privs", "capabilities", "rlimits", "descriptors", "environment", "seccomp"})
FILESYSTEM_WALLS = ("mount_namespace", "landlock")
NAMESPACES = ("user", "pid", "network", "ipc", "uts", "cgroup", "mount")
INNER_ID = 1000  # the uid and gid that a worker of a root supervisor has inside
FIRST_WORKER_UID, WORKER_UIDS = 61184, 256  # never 65534: an unmapped peer is shown as that
SCRATCH = "/scratch"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
ADDRESSES = 1 << 30  # bytes that an interpreter with large libraries maps and never uses (ADR 0012 has what was measured)
ADDRESSES_OF_A_THREAD = 72 << 20  # its stack of 8 MiB, and the 64 MiB that glibc reserves for its arena
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class LayerState(msgspec.Struct, frozen=True):
    """`state`: enforced, missing or off; `wanted`: require, prefer or off; `detail`: the kernel's refusal."""

    state: str
    wanted: str
    detail: str = ""


class Plan(msgspec.Struct, frozen=True):
    """`document` for the jail; `environment`; the maps that the supervisor writes; the ids that it expects to see;
    `remarks`: what an operator should read about the profile; `rlimits`: RLIMIT name -> [soft, hard] that it expects to see."""

    document: dict[str, Any]
    environment: dict[str, str]
    layers: dict[str, LayerState]
    uid_map: str
    gid_map: str
    deny_setgroups: bool
    host_uid: int
    host_gid: int
    remarks: tuple[str, ...]
    rlimits: dict[str, list[int]]


def states(sandbox: Sandbox, granted: Mapping[str, str]) -> dict[str, LayerState]:
    """Layer of contract section 10 -> what would be in force, whether or not a pool would start so."""
    found: dict[str, LayerState] = {}
    for name in NEEDS:
        wanted = sandbox.layers.get(name, "require" if name in REQUIRED else "prefer")
        refusal = granted.get(name, "not granted")
        found[name] = LayerState("off" if wanted == "off" else "missing" if refusal else "enforced", wanted, refusal)
    return found


def layers(sandbox: Sandbox, granted: Mapping[str, str]) -> dict[str, LayerState]:
    """Decide each layer of contract section 10. Raises ProtectionUnavailable naming the first missing required one."""
    decided = states(sandbox, granted)
    for name, layer in decided.items():
        if layer.state == "missing" and layer.wanted == "require":
            _refuse(name, layer.detail)
    walls = {wall: decided[wall].state for wall in FILESYSTEM_WALLS}
    missing = [wall for wall, state in walls.items() if state == "missing"]
    if missing and "enforced" not in walls.values():
        others = " and ".join(f"{wall} is {state} too" for wall, state in walls.items() if wall != missing[-1])
        _refuse(missing[-1], f"{decided[missing[-1]].detail}; {others}, and one file system wall is required")
    return decided


def refuse_unsupported(decided: Mapping[str, LayerState], uid: int) -> None:
    """A layer that is switched off carries others that are in force. Raises ConfigError."""
    on = [name for name, layer in decided.items() if layer.state == "enforced"]

    def refuse(layer: str, why: str, others: list[str]) -> None:
        too = f", switch {' and '.join(others)} off too" if others else ""
        raise ConfigError(f"sandbox.layers has {layer} = off, {why}; leave it on{too}")

    if decided["capabilities"].state == "off" and uid == 0:
        refuse("capabilities", "and it is what gives the workers of a supervisor that is root a uid of their own", [])
    if decided["user_namespace"].state == "off" and uid != 0:
        others = [f"{kind}_namespace" for kind in NAMESPACES if f"{kind}_namespace" in on]
        if others:
            refuse("user_namespace", f"and uid {uid} gets no other namespace without it", others)
    privileged = decided["capabilities"].state != "enforced" and (uid == 0 or "user_namespace" in on)
    others = [name for name in ("landlock", "seccomp") if name in on]
    if decided["no_new_privs"].state == "off" and others and not privileged:
        refuse("no_new_privs", f"and the kernel grants {' and '.join(others)} only with it", others)


def build(
    *, sandbox: Sandbox, limits: Limits, interpreter: Interpreter, granted: Mapping[str, str], landlock_abi: int,
    environment: Mapping[str, str], script: str, source: str, preload: tuple[str, ...], workers: int, ordinal: int,
    solo: bool, uid: int, gid: int, cgroups: list[str], keeps_the_dead: bool = False, warm: bool = False, busy_polling: float = 0.0,
) -> Plan:
    """The whole plan of one zygote. `keeps_the_dead`: workers that ended stay zombies until their status was read. Raises ConfigError,
    ProtectionUnavailable."""
    decided = layers(sandbox, granted)
    refuse_unsupported(decided, uid)
    on = {name for name, layer in decided.items() if layer.state == "enforced"}
    rules = _rules(sandbox.profile)
    namespaces = [kind for kind in NAMESPACES if f"{kind}_namespace" in on]
    host_uid, host_gid, become = uid, gid, None
    if uid == 0:
        host_uid = host_gid = FIRST_WORKER_UID + ordinal % WORKER_UIDS
        become = [INNER_ID, INNER_ID] if "user" in namespaces else [host_uid, host_gid]
    readable = _outermost([*interpreter.readable, *sandbox.read])
    for path in sandbox.read:
        if not os.path.exists(path):
            raise ConfigError(f"sandbox.read names {path!r}, which does not exist; remove it or create it")
        if beneath(os.path.realpath(path), "/proc"):
            raise ConfigError(f"sandbox.read names {path!r}, which shows every process of this machine; remove it")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if (sandbox.scratch or 0) > memory:
        raise ConfigError(f"sandbox.scratch is {sandbox.scratch} bytes, and it lies in memory, of which this machine has {memory}; "
                          "write a smaller size")
    if uid == 0:
        refuse_unreachable(decided, interpreter, host_uid, sandbox.read)
    template, marks = derive.worker_template(rules)
    bounds = rlimits(limits, workers, address_space="cgroup" not in on, own_uid=uid == 0 or "user" in namespaces)
    document = {
        "layers": sorted(on), "namespaces": [kind for kind in namespaces if kind != "user"],
        "mounts": [{"source": p, "target": p, "flags": ["ro", "nosuid", "nodev"]} for p in readable]
        + [{"source": p, "target": p, "flags": ["nosuid", "noexec"]} for p in DEVICES if os.path.exists(p)],
        "links": {f"/{name}": os.readlink(f"/{name}") for name in ("lib", "lib64", "bin", "sbin")
                  if os.path.islink(f"/{name}")},
        "scratch": {"path": SCRATCH, "bytes": sandbox.scratch or 0, "files": limits.scratch_files},
        "hostname": "sandbox", "rlimits": {name: list(pair) for name, pair in bounds.items()},
        "become": become, "bounding": uid == 0 or "user" in namespaces,
        "landlock": {"abi": min(landlock_abi, 7), "rules": [(p, "read") for p in readable]
                     + [(p, "write" if p == "/dev/null" else "read") for p in DEVICES]
                     + ([(SCRATCH, "write")] if sandbox.scratch else [])},
        "seccomp": {"zygote": base64.b64encode(derive.zygote_filter(rules)).decode()} if "seccomp" in on else None,
        "worker": {
            "setsid": sandbox.profile != "strict", "user_namespace": "user" in namespaces, "parent_death": "parent_death" in on,
            "landlock": {"abi": min(landlock_abi, 7)} if "landlock" in on and landlock_abi >= 4 else None,
            "seccomp": base64.b64encode(template).decode() if "seccomp" in on else None, "marks": list(marks),
        },
        "sys_path": list(interpreter.sys_path), "site_path": list(interpreter.site_path), "preload": list(preload),
        "script": {"path": script, "source": source, "folder": importable(os.path.dirname(script), sandbox.read)},
        "solo": solo, "cgroups": cgroups, "keeps_the_dead": keeps_the_dead, "warm": warm,
        "limits": {"request": limits.request, "response": limits.response, "busy_polling": busy_polling},
    }
    inner = "".join(("0 0 1", f"\n{INNER_ID} {host_uid} 1")) if uid == 0 else f"0 {uid} 1"
    inner_gid = "".join(("0 0 1", f"\n{INNER_ID} {host_gid} 1")) if uid == 0 else f"0 {gid} 1"
    home = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "LC_CTYPE": "C.UTF-8", **ONE_THREAD}
    return Plan(document, {**home, **environment}, decided, inner, inner_gid, uid != 0, host_uid, host_gid,
                rules.remarks(), bounds)


def rlimits(limits: Limits, workers: int, *, address_space: bool, own_uid: bool) -> dict[str, list[int]]:
    """RLIMIT name -> [soft, hard], for the zygote and so for what it forks. NPROC is narrowed for each worker later.

    `own_uid`: nothing else runs under the workers' uid, as the kernel counts NPROC over all of a uid's processes in a user
    namespace: set where the user's own programs count too, it would refuse an honest thread.
    """
    flat = {"CORE": 0, "NOFILE": limits.open_files, "FSIZE": limits.file_size, "MEMLOCK": 0, "MSGQUEUE": 0, "SIGPENDING": 64,
            "NICE": 0, "RTPRIO": 0}
    if own_uid:
        flat["NPROC"] = workers * (limits.threads + limits.processes) + 16
    # what a group counts is memory that is used; addresses are more, and without a group they are all there is to count
    flat["AS"] = limits.memory + (0 if address_space else ADDRESSES + limits.threads * ADDRESSES_OF_A_THREAD)
    seconds = max(1, int(limits.cpu_time))
    return {**{name: [value, value] for name, value in flat.items()}, "CPU": [seconds, seconds + 1]}


def refuse_unreachable(decided: Mapping[str, LayerState], interpreter: Interpreter, uid: int, listed: tuple[str, ...]) -> None:
    """Workers reach their interpreter by the host's own path where mounts are off, and by that of a listed folder above it. Raises
    ProtectionUnavailable, ConfigError where `uid`, which owns nothing and is in no group, cannot pass a folder on the way."""
    mounted = decided["mount_namespace"].state == "enforced"
    for path in interpreter.readable:
        way = [folder for folder in (*(str(folder) for folder in reversed(Path(path).parents)), path)
               if not mounted or any(beneath(folder, other) for other in listed)]
        closed = [folder for folder in way if os.path.isdir(folder) and not os.stat(folder).st_mode & stat.S_IXOTH]
        if closed and mounted:
            raise ConfigError(f"sandbox.read names a folder with the interpreter's {path} in it, and {closed[0]} is closed to workers, "
                              f"whose uid is {uid}; name what they need below it")
        if closed:
            raise ProtectionUnavailable(
                f"layer mount_namespace is not in force, and without it workers of uid {uid} cannot reach the interpreter's {path}: "
                f"{closed[0]} is closed to others", layer="mount_namespace",
                remedy="use an interpreter below a folder that everybody may pass, such as /usr, or do not switch the layer off")


def importable(folder: str, listed: tuple[str, ...]) -> str | None:
    """The script's folder, if the user has listed it or a folder above it."""
    return folder if any(os.path.commonpath((folder, path)) == path for path in listed) else None


def _outermost(paths: list[str]) -> list[str]:
    """Existing paths without those that lie below another or are links to a folder that is linked anyway."""
    kept: list[str] = []
    real = {os.path.realpath(p) for p in paths if os.path.exists(p)} | {
        os.path.abspath(p) for p in paths if os.path.exists(p) and not os.path.islink(p)}
    for path in sorted(real, key=len):
        if not any(beneath(path, other) for other in kept):
            kept.append(path)
    return kept


def _rules(name: str) -> Profile:
    try:
        return profile.named(name)
    except ProfileError as error:
        raise ConfigError(f"sandbox {error}") from error


def _refuse(layer: str, detail: str) -> None:
    needs, remedy = NEEDS[layer]
    raise ProtectionUnavailable(f"layer {layer} is required and missing: {detail} (it needs {needs})", layer=layer,
                                remedy=remedy)
