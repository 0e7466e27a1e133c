"""What must be true of a worker before it may serve, read by the supervisor from /proc. The comparison is pure.

Each property has a line of its own; what differs is named with both values and ends the worker (`policy`). Landlock and
MDWE cannot be read from outside; they are tried by the probe and applied before any user code runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pyproc.host.procfs import Status

KIND_OF_LAYER = {"user_namespace": "user", "pid_namespace": "pid", "network_namespace": "net", "ipc_namespace": "ipc",
                 "uts_namespace": "uts", "cgroup_namespace": "cgroup", "mount_namespace": "mnt"}


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
