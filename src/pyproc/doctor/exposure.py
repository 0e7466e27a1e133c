"""The exposure of a pool, from 0 (closed) to 10 (open): a sum of lines, each with a weight and a measured share of it. Pure.

Rules and reasons:

* The weights add up to exactly 10: there is no cap that could hide a change, and each line can be read off the number.
* A line's share never falls when a layer is switched off: what another layer covered (paths, system calls) counts in full
  then. A property test holds this.
* Weights are hundredths, so that sums are exact. They order what an attacker gains, from the system calls of the kernel to
  a host's name; they are judgement, and the table in the reference shows every one.
* Rejected: levels (low, high), which hide what changed; a product of factors, of which nobody can say what a key is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pyproc.config.units import time_text
from pyproc.doctor.facts import Facts

WALLS = ("mount_namespace", "landlock")  # of files
LONG_CALL = 600.0  # seconds; beyond it a stuck call holds its worker for as long as an operator's coffee
LAYER_WEIGHTS = {  # hundredths
    "seccomp": 120, "mount_namespace": 60, "landlock": 50, "user_namespace": 50, "capabilities": 50, "cgroup": 50,
    "no_new_privs": 40, "network_namespace": 40, "rlimits": 40, "pid_namespace": 30, "descriptors": 30, "environment": 20,
    "dumpable": 20, "ipc_namespace": 15, "cgroup_namespace": 10, "parent_death": 10, "mdwe": 10, "uts_namespace": 5,
}
BREADTH = {  # what a class of system calls gives, and the calls that stand for it
    "sockets": ("socket", "connect", "bind", "listen"),
    "other programs": ("execve", "execveat", "fork", "vfork"),
    "changing files": ("mkdirat", "unlinkat", "renameat2", "ftruncate", "linkat", "open"),
    "other processes": ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise"),
    "another view": ("mount", "umount2", "setns", "unshare", "pivot_root", "chroot", "open_by_handle_at", "move_mount", "fsopen"),
    "rarely tested parts of the kernel": (
        "bpf", "io_uring_setup", "userfaultfd", "perf_event_open", "keyctl", "add_key", "memfd_create", "memfd_secret", "personality",
        "init_module", "kexec_load", "modify_ldt"),
}


class Measured(NamedTuple):
    """`share` of the line's weight, 0 to 1, and the `evidence` for it."""

    share: float
    evidence: str


class Line(NamedTuple):
    """`weight` in hundredths; `key` of the pool, or of the service, that changes it; `what` is measured; the `remedy`."""

    name: str
    weight: int
    key: str
    what: str
    measure: Callable[[Facts], Measured]
    remedy: str


class Row(NamedTuple):
    """A line of one pool: `points` of `weight`, both on the scale of 10."""

    name: str
    points: float
    weight: float
    key: str
    evidence: str
    remedy: str


def assess(facts: Facts) -> list[Row]:
    """Every line, in the order of LINES."""
    rows = []
    for line in LINES:
        share, evidence = line.measure(facts)
        key = line.key if line.key.startswith("service.") else f"pools.{facts.pool}.{line.key}"
        rows.append(Row(line.name, round(line.weight * share) / 100, line.weight / 100, key, evidence, line.remedy if share else ""))
    return rows


def total(rows: list[Row]) -> float:
    """The exposure: 0 closed, 10 open."""
    return round(sum(round(row.points * 100) for row in rows) / 100, 2)


def _layer(name: str, facts: Facts) -> Measured:
    layer = facts.layers[name]
    return Measured(float(layer.state != "enforced"), f"{layer.state}: {layer.detail}" if layer.detail else layer.state)


def _profile(facts: Facts) -> Measured:
    given = [kind for kind, calls in BREADTH.items() if facts.allowed & set(calls)]
    return Measured(len(given) / len(BREADTH), f"{len(facts.allowed)} system calls reach the kernel"
                    + (f", among them those for {', '.join(given)}" if given else ""))


def _supervisor(facts: Facts) -> Measured:
    return Measured(float(facts.supervisor_uid == 0), f"this supervisor has uid {facts.supervisor_uid}")


def _worker_uid(facts: Facts) -> Measured:
    if facts.worker_uid is None:
        return Measured(1.0, "no worker was started")
    shared = facts.worker_uid in (0, facts.supervisor_uid)
    return Measured(float(shared), f"workers have uid {facts.worker_uid} on the host" + (", as the supervisor has" if shared else ""))


def _variables(facts: Facts) -> Measured:
    told = ", ".join(f"{name} by {why}" for name, why in facts.secret_variables.items())
    return Measured(min(1.0, len(facts.secret_variables) / 2), f"look like secrets: {told}" if told else "none looks like a secret")


def _walled(facts: Facts) -> bool:
    return any(facts.enforced(wall) for wall in WALLS)


def _wide(facts: Facts) -> Measured:
    if not _walled(facts):
        return Measured(1.0, "neither file system wall is in force: every path is readable")
    found = [place for place in facts.places if place.wide]
    told = ", ".join(f"{place.path} ({place.wide})" for place in found)
    return Measured(min(1.0, len(found) / 2), f"wide: {told}" if found else f"{len(facts.places)} paths are listed, none is wide")


def _secret_paths(facts: Facts) -> Measured:
    if not _walled(facts):
        return Measured(1.0, "neither file system wall is in force: every path is readable")
    found = [f"{place.path}: {', '.join((*place.secrets[:3], *(['…'] if place.secrets[3:] else [])))}" for place in facts.places
             if place.secrets]
    unseen = [place.path for place in facts.places if not place.whole]
    if found:
        return Measured(1.0, f"look like secrets below {'; '.join(found)}")
    if unseen:
        return Measured(0.5, f"not seen to the end, as there is too much: {', '.join(unseen)}")
    return Measured(0.0, "none was found")


def _scratch(facts: Facts) -> Measured:
    return Measured(float(facts.scratch > 0), f"{facts.scratch} bytes of scratch, shared by the pool's workers" if facts.scratch
                    else "no place can be written")


def _isolation(facts: Facts) -> Measured:
    kept = {"worker": 1.0, "tenant": 0.5, "call": 0.0}[facts.isolation]
    return Measured(kept, f"isolation is {facts.isolation}" + (": what a call leaves behind, the next one meets" if kept == 1 else ""))


def _memory(facts: Facts) -> Measured:
    asked = facts.workers * facts.memory
    return Measured(float(asked > facts.machine_memory),
                    f"{facts.workers} workers may use {asked >> 20} MiB together, the machine has {facts.machine_memory >> 20} MiB")


def _cpus(facts: Facts) -> Measured:
    bound = "a worker may use every processor" if facts.cpus is None else f"bound to {facts.cpus} processors"
    return Measured(float(facts.cpus is None), bound)


def _processes(facts: Facts) -> Measured:
    return Measured(float(facts.processes > 1), f"{facts.processes} processes in a worker")


def _timeout(facts: Facts) -> Measured:
    return Measured(float(facts.timeout > LONG_CALL), f"a call may take {time_text(facts.timeout)}, long is beyond {LONG_CALL:g} s")


LINES = (
    *(Line(name, weight, f"sandbox.layers.{name}", f"the layer {name} is not in force", partial(_layer, name),
           "see the layer's remedy; do not switch it off") for name, weight in LAYER_WEIGHTS.items()),
    Line("profile_breadth", 70, "sandbox.profile", f"classes of system calls that reach the kernel, of {len(BREADTH)}", _profile,
         "use profile strict, or leave those calls out of the profile"),
    Line("wide_paths", 50, "sandbox.read", "listed paths that are wide; two count in full", _wide,
         "list the folders and files that the worker opens"),
    Line("secret_paths", 50, "sandbox.read", "listed paths with files that look like secrets and that workers can open", _secret_paths,
         "move the secrets elsewhere, close them to the workers' uid, or list a narrower path"),
    Line("secret_variables", 40, "env", "variables that look like secrets; two count in full", _variables,
         "keep the secret in the application, and pass what is made with it"),
    Line("root_supervisor", 40, "service.user", "the supervisor runs as root", _supervisor, "run it as an ordinary user"),
    Line("isolation", 20, "isolation", "calls share a process", _isolation, "isolation = \"call\""),
    Line("scratch", 20, "sandbox.scratch", "workers can write files", _scratch, "remove scratch, if the worker need not write"),
    Line("memory", 20, "limits.memory", "all workers together may use more memory than the machine has", _memory,
         "lower limits.memory or workers"),
    Line("worker_uid", 10, "service.worker_uids", "workers have the supervisor's uid, or root's, on the host", _worker_uid,
         "only root can give workers a uid of their own; as an ordinary user this line stays"),
    Line("cpus", 10, "limits.cpus", "no bound of processors", _cpus, "limits.cpus = 1.0, where a cpu group is granted"),
    Line("processes", 10, "limits.processes", "a worker may start further processes", _processes, "limits.processes = 1"),
    Line("timeout", 10, "timeout", "calls may take long", _timeout, f"timeout of at most {LONG_CALL:g} s"),
)
