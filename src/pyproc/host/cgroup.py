"""Where this process may make control groups, found by really making and removing one below its own.

Rules: a hierarchy counts if its controller was used in a probe group, not if a file says that it exists. Version 2 is taken
where it has the controllers, version 1 for the rest; a machine may have both. Our own group's folder is found through
/proc/self/mountinfo, as a container shows a part of the hierarchy; only where our own path is not in that part do we use the
root of what is mounted.

On version 2 a group with processes passes no controllers on. A service that its manager gave a subtree (`Delegate=yes`)
moves itself into a leaf first (`move_self`); a library never moves its application, and reports why instead.

Names carry pid namespace, pid and start time of their maker, so that `sweep` can tell what a killed one left from what is
alive, in a hierarchy that several containers share too.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from pyproc.host import libc, procfs
from pyproc.host.group import Group, enable, make, remove, unified, write

__all__ = ["CONTROLLERS", "Group", "Hierarchy", "hierarchies", "owner_name", "parents", "remove", "sweep"]

CONTROLLERS = ("memory", "pids")
OPTIONAL = ("cpu", "freezer")
LEAF = "pyproc-supervisor"  # where a delegated service moves itself
REMEDY = "a delegated group (Delegate=yes) is needed, and this process in a leaf of it; pyproc doctor prints the lines"
PROBED = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max", "pids.max"),
          "cpu": ("cpu.max", "cpu.cfs_quota_us"), "freezer": ("cgroup.freeze", "freezer.state")}
NAME = re.compile(r"pyproc-(\d+)-(\d+)-(\d+)-[0-9a-f]{8}")


class Hierarchy(NamedTuple):
    """A mounted hierarchy: `folder` of our own group in it, `version`, and the controllers of version 1."""

    folder: str
    version: int
    controllers: frozenset[str]


def parents(*, also: Iterable[str] = (), move_self: bool = False) -> tuple[dict[str, str], str]:
    """(controller -> folder in which we may make groups, "") or ({}, why not).

    memory and pids must be granted; of `also` ("cpu", "freezer") what is granted is added.
    """
    try:
        found = hierarchies(procfs.read("/proc/self/cgroup").decode(), procfs.read("/proc/self/mountinfo").decode())
    except OSError as error:
        return {}, str(error)
    granted: dict[str, str] = {}
    for controller in (*CONTROLLERS, *(name for name in also if name in OPTIONAL)):
        folder, refusal = _granted(controller, found, move_self=move_self)
        if folder:
            granted[controller] = folder
        elif controller in CONTROLLERS:
            return {}, refusal
    return granted, ""


def hierarchies(own: str, mountinfo: str) -> list[Hierarchy]:
    """The hierarchies in the texts of /proc/self/cgroup and /proc/self/mountinfo, version 2 first. Pure but for isdir."""
    places: dict[str, str] = {}  # controller, or "" for version 2 -> our own path
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        places.update(dict.fromkeys(names.split(","), path))
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount = (_unescaped(word) for word in before.split()[3:5])
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            found.append(Hierarchy(_folder(mount, root, places.get("", "/")), 2, frozenset()))
        elif kind == "cgroup":
            controllers = frozenset(options.split(",")) & frozenset(places)
            if controllers:
                found.append(Hierarchy(_folder(mount, root, places[min(controllers)]), 1, controllers))
    return sorted(found, key=lambda hierarchy: -hierarchy.version)


def owner_name() -> str:
    """A new name for a pool's folder: pid namespace, pid and start time of this process and a random part."""
    return f"{_owner()}-{secrets.token_hex(4)}"


def sweep(folders: Iterable[str]) -> list[str]:
    """Remove the empty groups that dead makers of our pid namespace left in `folders`; returns what was removed.

    A name that `owner_name` did not make is left alone, as is a group in which a process still lives.
    """
    removed: list[str] = []
    for folder in dict.fromkeys(folders):
        for name in _subfolders(folder):
            if _dead(name):
                path = f"{folder}/{name}"
                for below in _subfolders(path):
                    remove(f"{path}/{below}", 0.0)
                if remove(path, 0.0):
                    removed.append(path)
    return removed


def _granted(controller: str, found: list[Hierarchy], *, move_self: bool) -> tuple[str, str]:
    refusal = f"no cgroup hierarchy has the controller {controller}"
    for hierarchy in found:
        try:
            if hierarchy.version == 1 and controller in hierarchy.controllers:
                _probe(hierarchy.folder, controller)
                return hierarchy.folder, ""
            base = _above_leaf(hierarchy.folder)  # nothing is passed on to the leaf before `base` was asked to
            if hierarchy.version == 2 and (controller == "freezer" or controller in _offered(base)):
                _pass_on(base, controller, move_self=move_self)
                _probe(base, controller)
                return base, ""
        except OSError as error:
            refusal = f"controller {controller}: {error.strerror or error}"
            if hierarchy.version == 2:
                refusal += f"; {REMEDY}"
    return "", refusal


def _offered(folder: str) -> list[str]:
    return procfs.read(f"{folder}/cgroup.controllers").decode("ascii").split()


def _above_leaf(folder: str) -> str:
    """The version 2 folder below which we make groups: our own, or the one above it for who stands in a leaf."""
    return os.path.dirname(folder) if os.path.basename(folder) == LEAF else folder


def _pass_on(base: str, controller: str, *, move_self: bool) -> None:
    """Have groups below `base` get `controller`."""
    if controller == "freezer":
        return
    try:
        enable(base, [controller])
    except OSError:
        others = set(map(int, procfs.read(f"{base}/cgroup.procs").split())) - {os.getpid()}
        if not move_self or others:
            raise
        make(f"{base}/{LEAF}", {})
        write(f"{base}/{LEAF}/cgroup.procs", str(os.getpid()))
        enable(base, [controller])


def _probe(folder: str, controller: str) -> None:
    probe = f"{folder}/{_owner()}-{secrets.token_hex(4)}"
    libc.kernel.mkdir(probe, 0o755)
    try:
        path = f"{probe}/{PROBED[controller][0 if unified(probe) else 1]}"
        libc.kernel.close(libc.kernel.open(path, os.O_WRONLY | os.O_CLOEXEC))
        libc.kernel.close(libc.kernel.open(f"{probe}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
    finally:
        libc.kernel.rmdir(probe)


def _owner() -> str:
    pid = os.getpid()
    return f"pyproc-{_namespace()}-{pid}-{procfs.stat(pid).start}"


def _namespace() -> str:
    return libc.kernel.readlink("/proc/self/ns/pid").strip("pid:[]")


def _dead(name: str) -> bool:
    match = NAME.fullmatch(name)
    if match is None or match[1] != _namespace():
        return False
    try:
        return str(procfs.stat(int(match[2])).start) != match[3]
    except procfs.GoneError:
        return True


def _subfolders(folder: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _folder(mount: str, root: str, own: str) -> str:
    """Our own folder in what `mount` shows of the hierarchy, which begins at `root`; or `mount` itself."""
    if own == root:
        return mount
    below = own.removeprefix(root.rstrip("/"))
    inside = below != own or root == "/"
    folder = f"{mount.rstrip('/')}/{below.strip('/')}".rstrip("/")
    return folder if inside and below.startswith("/") and ".." not in below.split("/") and os.path.isdir(folder) else mount


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)
