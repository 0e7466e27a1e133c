"""One control group of one worker tree: made, joined, read, frozen, ended, removed. Version 1 and version 2.

```
folders = {"memory": "…/pyproc-…/worker-1", "pids": "…/pyproc-…/worker-1", …}
version 1: a folder in each controller's hierarchy          version 2: one folder for all, named once for each
```

Rules: a limit is read back after it is set, as the kernel rounds and older ones ignore. A group that cannot be completed is
removed again. What the machine cannot bound is an attribute (`swap_bounded`) or an error, never silence. Waiting is bounded,
by polling where version 1 has no event. Processes of a group are signalled by pidfd after their number was seen in it twice.
Joining one hierarchy costs 0.2-0.3 ms and the freezer and cpu ones more, so a group joins only what it was given.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Mapping

from pyproc.errors import ProtectionUnavailable
from pyproc.host import libc, pidfd, procfs

PAUSE = 0.002  # seconds between two looks: a dying process leaves its group within milliseconds
DRAIN_SECONDS = 1.0  # until a killed process has left its group
FREEZE_SECONDS = 1.0
KILL_ROUNDS = 50  # without cgroup.kill or a freezer: a fork bomb is outrun or bounded by pids.max
CPU_PERIOD = 100_000  # microseconds, the kernel's default
CPU_QUOTA_MIN = 1_000  # microseconds, the kernel's least


class Group:
    """The groups of one worker. `folders`: controller -> its folder, the parent of which exists or is made.

    `memory` in bytes with no swap beyond it, `pids` in tasks, `cpus` in processors. "cpu" and "freezer" are used where
    `folders` has them, "cpu" only with `cpus`. Raises OSError, and ProtectionUnavailable for `cpus` without "cpu".
    """

    def __init__(self, folders: Mapping[str, str], *, memory: int, pids: int, cpus: float | None = None) -> None:
        if cpus is not None and "cpu" not in folders:
            raise ProtectionUnavailable(f"limits.cpus is {cpus}, and no cpu controller is granted here", layer="cgroup",
                                        remedy="leave limits.cpus out, or delegate the cpu controller")
        self._folders = {name: folder for name, folder in folders.items() if name != "cpu" or cpus is not None}
        self._frozen = False
        self.swap_bounded = True
        try:
            for folder in self.paths():
                make(folder, self._folders)
            self._bound_memory(self._folders["memory"], memory)
            limit(f"{self._folders['pids']}/pids.max", pids)
            if cpus is not None:
                self._bound_cpu(self._folders["cpu"], cpus)
        except OSError:
            self.remove(seconds=0.0)
            raise

    def paths(self) -> tuple[str, ...]:
        """The folders, each once."""
        return tuple(dict.fromkeys(self._folders.values()))

    def parent_fds(self) -> tuple[tuple[int, str], ...]:
        """(descriptor of the parent folder, name) of each, for a helper that removes them when we are dead. The caller
        closes the descriptors."""
        held: list[tuple[int, str]] = []
        try:
            for path in self.paths():
                parent, name = os.path.split(path)
                held.append((libc.kernel.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name))
        except OSError:
            for fd, _ in held:
                libc.kernel.close(fd)
            raise
        return tuple(held)

    def add(self, pid: int) -> None:
        """Move process `pid`, all its threads, in. Raises OSError; ProcessLookupError when it is gone."""
        for path in self.paths():
            write(f"{path}/cgroup.procs", str(pid))

    def members(self) -> frozenset[int]:
        """The processes in any of the folders that our pid namespace shows."""
        return frozenset(pid for path in self.paths() for pid in _members(path))

    def holds(self, pid: int) -> bool:
        """True if `pid` is in every one of the folders: to be asked after `add`, as evidence."""
        return all(pid in _members(path) for path in self.paths())

    def places(self) -> dict[str, str]:
        """Controller ("" for version 2) -> how the path of this group ends in /proc/PID/cgroup of each member."""
        return {"" if unified(folder) else name: "/" + "/".join(folder.split("/")[-2:])
                for name, folder in self._folders.items()}

    def oom_kills(self) -> int:
        """How many processes of this group the kernel ended for want of memory."""
        folder = self._folders["memory"]
        return _counter(f"{folder}/memory.events" if unified(folder) else f"{folder}/memory.oom_control", b"oom_kill")

    def freeze(self, seconds: float = FREEZE_SECONDS) -> bool:
        """Stop all processes of the group; True once the kernel says that they stand. False without a freezer too."""
        switch = self._switch()
        if switch is None:
            return False
        path, frozen, _ = switch
        self._frozen = True
        write(path, frozen)
        return within(seconds, lambda: self._stands(path))

    def thaw(self) -> None:
        """Let the processes run again."""
        switch = self._switch()
        if switch is not None and self._frozen:
            write(switch[0], switch[2])
            self._frozen = False

    def kill(self) -> bool:
        """SIGKILL to every process of the group; True once it is empty. Forks meanwhile are met too."""
        killed_at_once = any(self._kill_at_once(path) for path in self.paths())
        for _ in range(KILL_ROUNDS):
            if not self.members():
                break
            if not killed_at_once:
                self.freeze(PAUSE * 10)  # version 1: nobody forks while the numbers are read
                self._kill_each()
            self.thaw()
            if within(PAUSE * 10, lambda: not self.members()):
                break
        return not self.members()

    def remove(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Remove the folders; waits, within the bound, for dying processes to leave. False if one had to stay."""
        removed = [remove(path, seconds) for path in self.paths()]  # every one is tried, whatever another answers
        return all(removed)

    def _bound_memory(self, folder: str, memory: int) -> None:
        if unified(folder):
            limit(f"{folder}/memory.max", memory)
            self.swap_bounded = _if_present(f"{folder}/memory.swap.max", 0)
            _if_present(f"{folder}/memory.oom.group", 1)  # Linux 4.19: a tree that lost one process is of no use
            return
        limit(f"{folder}/memory.limit_in_bytes", memory)
        self.swap_bounded = _if_present(f"{folder}/memory.memsw.limit_in_bytes", memory)  # a boot option
        if not self.swap_bounded:
            _if_present(f"{folder}/memory.swappiness", 0)

    def _bound_cpu(self, folder: str, cpus: float) -> None:
        quota = max(CPU_QUOTA_MIN, int(cpus * CPU_PERIOD))
        if unified(folder):
            write(f"{folder}/cpu.max", f"{quota} {CPU_PERIOD}")
            return
        limit(f"{folder}/cpu.cfs_period_us", CPU_PERIOD)
        limit(f"{folder}/cpu.cfs_quota_us", quota)

    def _switch(self) -> tuple[str, str, str] | None:
        """(file, text that freezes, text that thaws) of whatever freezer the folders have."""
        for path in self.paths():
            if unified(path) and os.path.exists(f"{path}/cgroup.freeze"):  # Linux 5.2
                return f"{path}/cgroup.freeze", "1", "0"
        folder = self._folders.get("freezer")
        return None if folder is None else (f"{folder}/freezer.state", "FROZEN", "THAWED")

    def _stands(self, path: str) -> bool:
        if path.endswith("freezer.state"):
            return procfs.read(path).strip() == b"FROZEN"
        return _counter(f"{os.path.dirname(path)}/cgroup.events", b"frozen") == 1

    def _kill_at_once(self, path: str) -> bool:
        try:
            write(f"{path}/cgroup.kill", "1")  # version 2, Linux 5.14
        except OSError:
            return False
        return True

    def _kill_each(self) -> None:
        held: dict[int, int] = {}
        try:
            for pid in self.members():
                try:
                    held[pid] = pidfd.open(pid)
                except ProcessLookupError:
                    continue
            for pid in self.members() & held.keys():  # still listed while held: the number is the member's
                pidfd.signal(held[pid], signal.SIGKILL)
        finally:
            for fd in held.values():
                libc.kernel.close(fd)


def make(folder: str, controllers: Mapping[str, str]) -> None:
    """mkdir with its parents; on version 2 the parent passes the controllers on to it. Raises OSError."""
    parent = os.path.dirname(folder)
    for path in (parent, folder):
        if not os.path.isdir(path):
            try:
                libc.kernel.mkdir(path, 0o755)
            except FileExistsError:
                pass  # another thread of ours was quicker with the parent
        if path == parent and unified(parent):
            enable(parent, [name for name, place in controllers.items() if place == folder and name != "freezer"])


def enable(parent: str, names: list[str]) -> None:
    """Version 2: have `parent` pass controllers on to the groups below it. Raises OSError."""
    passed_on = procfs.read(f"{parent}/cgroup.subtree_control").decode("ascii").split()
    for name in names:
        if name not in passed_on:
            write(f"{parent}/cgroup.subtree_control", f"+{name}")


def remove(folder: str, seconds: float = DRAIN_SECONDS) -> bool:
    """rmdir that waits, within `seconds`, while a dying process is still counted. False if the folder had to stay."""
    def removed() -> bool:
        try:
            libc.kernel.rmdir(folder)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    try:
        return within(seconds, removed)
    except OSError:
        return False


def unified(folder: str) -> bool:
    """True for a folder of the version 2 hierarchy."""
    return os.path.exists(f"{folder}/cgroup.controllers")


def limit(path: str, value: int) -> None:
    """Set a limit and read it back. Raises OSError, also for a limit that the kernel did not take."""
    write(path, str(value))
    got = procfs.read(path).strip().decode("ascii")
    page = os.sysconf("SC_PAGESIZE")
    if not (got.lstrip("-").isdigit() and (int(got) == value or value - page < int(got) <= value)):  # whole pages
        raise OSError(errno.EINVAL, f"{path} is {got} after {value} was written")


def write(path: str, text: str) -> None:
    """Write a control file with one write(2). Raises OSError naming the file."""
    try:
        fd = libc.kernel.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            libc.kernel.write(fd, text.encode("ascii"))
        finally:
            libc.kernel.close(fd)
    except OSError as error:
        raise OSError(error.errno, f"{path} does not take {text!r}: {os.strerror(error.errno or 0)}") from error


def within(seconds: float, done: Callable[[], bool]) -> bool:
    """Poll until `done` or until the time is over; asks at least once."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= end:
            return False
        select.select([], [], [], PAUSE)
    return True


def _if_present(path: str, value: int) -> bool:
    try:
        limit(path, value)
    except OSError:
        return False
    return True


def _members(path: str) -> list[int]:
    try:
        return [pid for pid in map(int, procfs.read(f"{path}/cgroup.procs").split()) if pid]  # 0: in no namespace of ours
    except procfs.GoneError:
        return []


def _counter(path: str, name: bytes) -> int:
    for line in procfs.read(path).splitlines():
        key, _, value = line.partition(b" ")
        if key == name:
            return int(value)
    return 0
