"""What /proc says of a process: plain reads, no library.

Rules: a number names a process only while a pidfd of it is held and alive; whoever reads by number asks the pidfd
afterwards. A vanished process is `GoneError` and a refused read `Unreadable`, both naming the file; they are OSErrors of
the kinds the kernel means (ESRCH, EACCES). The texts are the kernel's, but a process chooses its own name and its link
targets: names are skipped by their last parenthesis and targets are never followed.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from pyproc.host import libc

KINDS = ("user", "pid", "net", "ipc", "uts", "cgroup", "mnt")
CAPABILITY_FIELDS = (b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb")
STATUS_FIELDS = (b"Uid", b"Gid", b"Groups", *CAPABILITY_FIELDS, b"NoNewPrivs", b"Seccomp", b"Seccomp_filters", b"Threads",
                 b"PPid", b"NStgid", b"State", b"NSpid", b"Tgid")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) \S+ \S+ \S+\s*(.*)")  # proc(5): permissions, the name
CHUNK = 8192  # bytes of one read; status is about 1.5 KB
RLIM_INFINITY = -1  # as in the resource module
LIMIT_NAMES = {
    "Max cpu time": "RLIMIT_CPU", "Max file size": "RLIMIT_FSIZE", "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK", "Max core file size": "RLIMIT_CORE", "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC", "Max open files": "RLIMIT_NOFILE", "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS", "Max file locks": "RLIMIT_LOCKS", "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE", "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO", "Max realtime timeout": "RLIMIT_RTTIME",
}


class GoneError(ProcessLookupError):
    """The process (or its descriptor) is no more. Remedy: none; its pidfd tells how it ended."""


class Unreadable(PermissionError):
    """The kernel refuses the read. Cause: another uid, a process made undumpable outside a user namespace of ours, or a
    /proc mounted with hidepid. Remedy: a user namespace for the worker, or CAP_SYS_PTRACE."""


class Status(NamedTuple):
    """Fields of /proc/PID/status that are attested; capability sets as ints (inh, prm, eff, bnd, amb).

    `uids`, `gids`: real, effective, saved, file system. `filters`: 0 also where the kernel does not count them (before
    5.9). `inner_pid`: in the innermost namespace, `nspid`: in each from ours inwards. `tgid`: the process of a thread.
    """

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: frozenset[int]
    capabilities: tuple[int, ...]
    no_new_privs: int
    seccomp: int
    filters: int
    threads: int
    parent: int
    inner_pid: int
    state: str = ""
    nspid: tuple[int, ...] = ()
    tgid: int = 0


class Caller(NamedTuple):
    """The process of a thread: its `pid`, its `parent`, and its pid in the innermost namespace."""

    pid: int
    parent: int
    inner_pid: int


class Stat(NamedTuple):
    """Fields of /proc/PID/stat. `start`: clock ticks since boot; `exit_code`: a wait status, 0 without ptrace access."""

    state: str
    parent: int
    group: int
    session: int
    threads: int
    start: int
    exit_code: int


def read(path: str, *, one_record: bool = False) -> bytes:
    """A whole file of /proc. Raises GoneError, Unreadable or another OSError.

    `one_record`: the kernel makes this file as one record, of which a read that is not filled is the end.
    """
    try:
        fd = libc.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = chunk = libc.kernel.read(fd, CHUNK)
            while chunk and not (one_record and len(chunk) < CHUNK):
                chunk = libc.kernel.read(fd, CHUNK)
                text += chunk
        finally:
            libc.kernel.close(fd)
    except OSError as error:
        raise _told(error, path) from error
    return text


def status(pid: int) -> Status:
    """The status of a process or thread. Raises GoneError, Unreadable."""
    text = read(f"/proc/{pid}/status", one_record=True)
    found = {name: _field(text, name).split() for name in STATUS_FIELDS}

    def numbers(name: bytes) -> tuple[int, ...]:
        return tuple(map(int, found[name]))

    def number(name: bytes) -> int:
        return int(found[name][0]) if found[name] else 0

    capabilities = tuple(int(found[name][0], 16) for name in CAPABILITY_FIELDS)
    return Status(numbers(b"Uid"), numbers(b"Gid"), frozenset(numbers(b"Groups")), capabilities, number(b"NoNewPrivs"),
                  number(b"Seccomp"), number(b"Seccomp_filters"), int(found[b"Threads"][0]), int(found[b"PPid"][0]),
                  (numbers(b"NStgid") or (pid,))[-1], found[b"State"][0].decode("ascii"), numbers(b"NSpid") or (pid,),
                  int(found[b"Tgid"][0]))


def caller(pid: int) -> Caller:
    """Whose thread `pid` is. Raises GoneError, Unreadable."""
    text = read(f"/proc/{pid}/status", one_record=True)
    return Caller(int(_field(text, b"Tgid")), int(_field(text, b"PPid")), int((_field(text, b"NStgid").split() or [b"%d" % pid])[-1]))


def cgroups(pid: int) -> dict[str, str]:
    """Controller -> the group of that process in its hierarchy, "" for version 2. Raises GoneError, Unreadable."""
    found: dict[str, str] = {}
    for line in read(f"/proc/{pid}/cgroup", one_record=True).decode(errors="surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path))
    return found


def stat(pid: int) -> Stat:
    """The state, the family and the start time of a process. Raises GoneError, Unreadable."""
    fields = read(f"/proc/{pid}/stat", one_record=True).rpartition(b")")[2].split()  # from the third field of proc(5), the state, on
    return Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[17]),
                int(fields[19]), int(fields[49]))


def namespaces(pid: int) -> dict[str, str]:
    """Kind -> identity, such as {"pid": "pid:[4026531836]"}. Raises GoneError, Unreadable."""
    return {kind: _link(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def descriptors(pid: int) -> dict[int, str]:
    """Descriptor -> what it leads to; one that is closed while we look is left out. Raises GoneError, Unreadable."""
    folder = f"/proc/{pid}/fd"
    found: dict[int, str] = {}
    for name in _names(folder):
        try:
            found[int(name)] = _link(f"{folder}/{name}")
        except GoneError:
            continue
    return found


def shared_memory(pid: int) -> list[str]:
    """The names of the mappings that a fork shares and that may be written, now or after an mprotect(2). Raises GoneError, Unreadable,
    OSError where this kernel does not tell (CONFIG_PROC_PAGE_MONITOR)."""
    if not any(_shared(line) for line in read(f"/proc/{pid}/maps").splitlines()):
        return []  # the usual answer; the flags cost a walk through all pages
    found: list[str] = []
    shared = name = ""
    for line in read(f"/proc/{pid}/smaps").decode(errors="surrogateescape").splitlines():
        begin = _MAPPING.match(line)
        if begin:
            shared, name = begin[1][3], begin[2]
        elif line.startswith("VmFlags:") and shared == "s" and "mw" in line.split():
            found.append(name)
    return found


def _shared(mapping: bytes) -> bool:
    return mapping.split(maxsplit=2)[1][3:4] == b"s"


def folder(pid: int) -> str:
    """The working folder, in the process's own view. Raises GoneError, Unreadable."""
    return _link(f"/proc/{pid}/cwd")


def children(pid: int) -> list[int]:
    """The direct children, in order. Sure only of a process that cannot fork meanwhile. Raises GoneError, Unreadable."""
    found: list[int] = []
    for task in _names(f"/proc/{pid}/task"):
        try:
            found += map(int, read(f"/proc/{pid}/task/{task}/children").split())
        except GoneError:
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return _children_by_search(pid)  # a kernel without CONFIG_PROC_CHILDREN
    return sorted(found)


def limits(pid: int) -> dict[str, tuple[int, int]]:
    """RLIMIT_NAME -> (soft, hard), RLIM_INFINITY for none. Raises GoneError, Unreadable."""
    found: dict[str, tuple[int, int]] = {}
    for line in read(f"/proc/{pid}/limits").decode("ascii").splitlines()[1:]:
        name = LIMIT_NAMES.get(line[:26].rstrip())
        if name:
            soft, hard = (RLIM_INFINITY if word == "unlimited" else int(word) for word in line[26:].split()[:2])
            found[name] = (soft, hard)
    return found


def environment(pid: int) -> dict[str, str]:
    """The environment with which a process was started, as it stands in its memory now. Raises GoneError, Unreadable."""
    entries = read(f"/proc/{pid}/environ").decode(errors="surrogateescape").split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def _children_by_search(pid: int) -> list[int]:
    found: list[int] = []
    for name in _names("/proc"):
        if name.isdigit():
            try:
                if stat(int(name)).parent == pid:
                    found.append(int(name))
            except GoneError:
                continue
    return sorted(found)


def _field(text: bytes, name: bytes) -> bytes:
    """What a line of status says of `name`, b"" where this kernel has no such line. The kernel escapes line breaks in the
    name that a process gives itself, so a line begins only where the kernel began one."""
    at = text.find(b"\n" + name + b":")
    if at < 0:
        return b""
    at += len(name) + 2
    return text[at : text.index(b"\n", at)]


def _names(folder: str) -> list[str]:
    try:
        return libc.kernel.listdir(folder)
    except OSError as error:
        raise _told(error, folder) from error


def _link(path: str) -> str:
    try:
        return libc.kernel.readlink(path)
    except OSError as error:
        raise _told(error, path) from error


def _told(error: OSError, path: str) -> OSError:
    """The same refusal as one of this module's types, naming the file; what is neither keeps its own."""
    if isinstance(error, (FileNotFoundError, ProcessLookupError)):
        return GoneError(3, f"{path}: the process is gone")
    if isinstance(error, PermissionError):
        return Unreadable(error.errno, f"{path} may not be read: {os.strerror(error.errno or 0)}")
    return OSError(error.errno, f"{path} cannot be read: {os.strerror(error.errno or 0)}")


def available_memory() -> int:
    """Bytes that new processes may use on this machine without swapping, as the kernel estimates."""
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0
