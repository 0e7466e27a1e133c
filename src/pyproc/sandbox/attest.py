"""What must be true of a worker before it may serve, read by the supervisor from /proc. The comparison is pure.

Each property has a line of its own; what differs is named with both values and ends the worker (`policy`). Landlock, MDWE and
PDEATHSIG cannot be read from outside, nor can dumpable where the worker has the supervisor's own uid. Of these pid 1 itself tells
that it has applied them, at a time when nothing but our code has run in it; after the import nothing that it says counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pyproc.host.procfs import RLIM_INFINITY, Status

KIND_OF_LAYER = {"user_namespace": "user", "pid_namespace": "pid", "network_namespace": "net", "ipc_namespace": "ipc",
                 "uts_namespace": "uts", "cgroup_namespace": "cgroup", "mount_namespace": "mnt"}


TOLD = frozenset({"mount_namespace", "uts_namespace", "rlimits", "capabilities", "parent_death", "dumpable", "no_new_privs",
                  "landlock", "mdwe", "seccomp"})  # the steps of `pyproc_worker.jail.apply`
UNREADABLE = {  # of TOLD: why no supervisor can read it
    "parent_death": "the signal of the parent's death is known to the process alone (prctl)",
    "mdwe": "the flag is known to the process alone (prctl)",
    "landlock": "the kernel shows no domain of another process",
    "dumpable": "shown by the owner of the files in /proc, which is the same where the supervisor has the worker's uid",
}


class Expected(NamedTuple):
    """`layers` in force; `uid`, `gid` on the host; `groups` at most; `filters`: exactly how many; `places`: controller -> how
    the path of its control group ends."""

    layers: frozenset[str]
    uid: int
    gid: int
    groups: frozenset[int]
    filters: int
    threads: int
    parent: int | None
    descriptors: dict[int, str]
    own_namespaces: dict[str, str]
    zygote_namespaces: dict[str, str] | None
    places: Mapping[str, str]


def unconfined(layers: frozenset[str], applied: frozenset[str], *, environment: tuple[Mapping[str, str], Mapping[str, str]],
               limits: tuple[Mapping[str, tuple[int, int]], Mapping[str, list[int]]], hidden: bool | None) -> list[str]:
    """What is not as planned in pid 1 before the script runs, as text. `environment`, `limits`: as found, as planned; `hidden`:
    whether its files in /proc belong to somebody else than its uid, None where that tells nothing."""
    found = [f"{layer} is not applied" for layer in sorted(TOLD & layers - applied)]
    found += [f"{layer} is applied and was not planned" for layer in sorted(applied - layers)]
    if "environment" in layers and dict(environment[0]) != dict(environment[1]):
        names = sorted(name for name in {*environment[0], *environment[1]} if environment[0].get(name) != environment[1].get(name))
        found.append(f"environment differs in {', '.join(names)[:200]}")
    if "rlimits" in layers:
        found += [f"RLIMIT_{name} is {actual}, expected at most {wanted}" for name, wanted in sorted(limits[1].items())
                  if not _within(actual := limits[0].get(f"RLIMIT_{name}", (RLIM_INFINITY, RLIM_INFINITY)), wanted)]
    if "dumpable" in layers and hidden is False:
        found.append("dumpable is set: its files in /proc belong to its uid")
    return found


def _within(actual: tuple[int, int], wanted: list[int]) -> bool:
    """A limit that was lower before stays so."""
    return all(value != RLIM_INFINITY and value <= bound for value, bound in zip(actual, wanted, strict=True))


def differences(expected: Expected, status: Status, namespaces: dict[str, str], descriptors: dict[int, str],
                cgroups: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Every property that is not as it must be, as text; an empty list is the permission to serve."""
    found: list[str] = []

    def check(name: str, actual: object, wanted: object) -> None:
        if actual != wanted:
            found.append(f"{name} is {actual}, expected {wanted}")

    check("uid", set(status.uids), {expected.uid})
    check("gid", set(status.gids), {expected.gid})
    if not status.groups <= expected.groups:
        found.append(f"groups are {sorted(status.groups)}, expected at most {sorted(expected.groups)}")
    if "capabilities" in expected.layers:
        bounded = status.capabilities if "user_namespace" in expected.layers else status.capabilities[:3]
        check("capabilities", set(bounded), {0})
    if "no_new_privs" in expected.layers:
        check("NoNewPrivs", status.no_new_privs, 1)
    if "seccomp" in expected.layers:
        check("Seccomp", status.seccomp, 2)
        check("Seccomp_filters", status.filters, expected.filters)
    check("threads", status.threads, expected.threads)
    if expected.parent is not None:
        check("parent", status.parent, expected.parent)
    for layer, kind in KIND_OF_LAYER.items():
        if layer in expected.layers:
            if namespaces[kind] == expected.own_namespaces[kind]:
                found.append(f"{layer} is the supervisor's own, {namespaces[kind]}")
            if expected.zygote_namespaces is None:
                continue
            if kind != "user":
                check(layer, namespaces[kind], expected.zygote_namespaces[kind])
            elif namespaces[kind] == expected.zygote_namespaces[kind]:
                found.append(f"{layer} is the zygote's, {namespaces[kind]}, and must be the worker's own")
    if "descriptors" in expected.layers:
        check("descriptors", descriptors, expected.descriptors)
    for controller, place in expected.places.items():
        path = cgroups.get(controller, "nowhere")
        if not path.endswith(place):
            found.append(f"control group of {controller or 'version 2'} is {path}, expected one that ends in {place}")
    return found
