"""Control groups v1: memory and pids for each worker, where the machine grants a writable hierarchy.

Found by really making and removing a group below our own. A pool has one folder in each hierarchy and each worker one
below it; the name carries our pid, so that what a killed supervisor left can be told from what is alive. Unified (v2)
hierarchies without these controllers are reported as missing.
"""

from __future__ import annotations

import contextlib
import os
import select

CONTROLLERS = ("memory", "pids")
ROOT = "/sys/fs/cgroup"
TRIES, PAUSE = 100, 0.005  # a dying process leaves its group within milliseconds


def parents() -> tuple[dict[str, str], str]:
    """(controller -> folder in which we may make groups, "") or ({}, why not)."""
    own: dict[str, str] = {}
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _, names, path = line.rstrip("\n").split(":", 2)
                for name in names.split(","):
                    own[name] = path
    except OSError as error:
        return {}, str(error)
    found: dict[str, str] = {}
    for controller in CONTROLLERS:
        if controller not in own:
            return {}, f"no cgroup hierarchy with controller {controller}"
        base = f"{ROOT}/{controller}"
        folder = base + own[controller].rstrip("/")
        folder = folder if os.path.isdir(folder) else base
        probe = f"{folder}/pyproc-probe-{os.getpid()}"
        try:
            os.mkdir(probe)
            os.rmdir(probe)
        except OSError as error:
            return {}, str(error)
        found[controller] = folder
    return found, ""


class Group:
    """The groups of one worker: made, joined, read, removed."""

    def __init__(self, folders: dict[str, str], *, memory: int, pids: int) -> None:
        self._folders = folders
        for folder in folders.values():
            os.makedirs(folder, exist_ok=True)
        _write(f"{folders['memory']}/memory.limit_in_bytes", memory)
        with contextlib.suppress(OSError):  # swap accounting is a boot option
            _write(f"{folders['memory']}/memory.memsw.limit_in_bytes", memory)
        _write(f"{folders['pids']}/pids.max", pids)

    def add(self, pid: int) -> None:
        """Move process `pid` in. Raises OSError."""
        for folder in self._folders.values():
            _write(f"{folder}/cgroup.procs", pid)

    def oom_kills(self) -> int:
        """How many processes of this group the kernel ended for want of memory."""
        with open(f"{self._folders['memory']}/memory.oom_control", encoding="ascii") as file:
            fields = dict(line.split() for line in file)
        return int(fields.get("oom_kill", 0))

    def remove(self) -> None:
        """Remove the groups; waits, within a bound, for the dying process to leave them."""
        for folder in self._folders.values():
            remove(folder)


def remove(folder: str) -> None:
    """rmdir that waits, within a bound, while a dying process is still counted."""
    for _ in range(TRIES):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:
            select.select([], [], [], PAUSE)
        else:
            return


def _write(path: str, value: int) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(str(value))
