"""What a program does, in words a person uses, and the system calls behind each: the questions that `explain` answers. Pure.

Each call is written with arguments as CPython and glibc give them, because filters look at these. Where a machine has several
calls for one act, the first that its table knows is the one that its C library makes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from pyproc.sandbox.derive import FORK_FLAGS

AT_FDCWD: Final = (1 << 64) - 100
O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK, O_CLOEXEC = 0x1, 0x40, 0x200, 0x800, 0x80000
O_DIRECTORY: Final[int] = getattr(os, "O_DIRECTORY", 0x10000)  # another number on aarch64
ACCESS_MODE: Final = 0x3  # O_RDONLY, O_WRONLY, O_RDWR
O_APPEND, TMPFILE = 0x400, 0x400000  # of O_TMPFILE the bit of its own
WRITES: Final = ACCESS_MODE | O_CREAT | O_TRUNC | O_APPEND | TMPFILE
THREAD_FLAGS: Final = 0x3D0F00  # VM FS FILES SIGHAND THREAD SYSVSEM SETTLS PARENT_SETTID CHILD_CLEARTID, as pthread_create of glibc
AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM, SOCK_CLOEXEC = 1, 2, 10, 1, 0x80000


class SystemCall(NamedTuple):
    """One of `names`, the first that the machine has, with `arguments`; the rest are 0."""

    names: tuple[str, ...]
    arguments: tuple[int, ...] = ()


class Act(NamedTuple):
    """`kind` is one of KINDS. `path` for acts on files and AF_UNIX sockets, `host` and `port` for others, `call` for kind call."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0
    call: SystemCall | None = None

    @property
    def writes(self) -> bool:
        """It changes files or folders."""
        return self.kind in CHANGES


def _opens(flags: int) -> tuple[SystemCall, ...]:
    return (SystemCall(("openat",), (AT_FDCWD, 0, flags | O_CLOEXEC)),)


KINDS: Final[Mapping[str, tuple[SystemCall, ...]]] = {
    "open": _opens(0),
    "write": _opens(O_WRONLY | O_CREAT | O_TRUNC),
    "list": (*_opens(O_DIRECTORY | O_NONBLOCK), SystemCall(("getdents64",))),
    "stat": (SystemCall(("newfstatat",), (AT_FDCWD,)),),
    "mkdir": (SystemCall(("mkdir", "mkdirat")),),
    "rmdir": (SystemCall(("rmdir", "unlinkat")),),
    "remove": (SystemCall(("unlink", "unlinkat")),),
    "rename": (SystemCall(("rename", "renameat")),),
    "link": (SystemCall(("link", "linkat")),),
    "symlink": (SystemCall(("symlink", "symlinkat")),),
    "truncate": (SystemCall(("truncate",)),),
    "chmod": (SystemCall(("chmod", "fchmodat")),),
    "chown": (SystemCall(("chown", "fchownat")),),
    "utime": (SystemCall(("utimensat",)),),
    "mkfifo": (SystemCall(("mknod", "mknodat")),),
    "exec": (SystemCall(("execve",)),),
    "fork": (SystemCall(("clone",), (FORK_FLAGS,)),),
    "thread": (SystemCall(("clone",), (THREAD_FLAGS,)),),
    "connect": (SystemCall(("socket",), (AF_INET, SOCK_STREAM | SOCK_CLOEXEC)), SystemCall(("connect",))),
    "listen": (SystemCall(("socket",), (AF_INET, SOCK_STREAM | SOCK_CLOEXEC)), SystemCall(("bind",)), SystemCall(("listen",))),
    "call": (),
}
CHANGES: Final = frozenset({
    "write", "mkdir", "rmdir", "remove", "rename", "link", "symlink", "truncate", "chmod", "chown", "utime", "mkfifo"})
ON_PATHS: Final = CHANGES | {"open", "list", "stat", "exec"}
MAKES: Final = frozenset({"write", "mkdir", "symlink", "mkfifo"})
NO_LANDLOCK_RIGHT: Final = frozenset({"symlink", "mkfifo"})
"""What Landlock's rule for the scratch does not grant: MAKE_SYM, MAKE_FIFO (pyproc_worker.jail.landlock, WRITE)."""

WORDS: Final = {
    "open": "opening {} for reading", "write": "opening {} for writing", "list": "listing {}", "stat": "asking about {}",
    "mkdir": "making the folder {}", "rmdir": "removing the folder {}", "remove": "removing {}", "rename": "renaming {}",
    "link": "making the hard link {}", "symlink": "making the symbolic link {}", "truncate": "truncating {}",
    "chmod": "changing the mode of {}", "chown": "changing the owner of {}", "utime": "changing the times of {}",
    "mkfifo": "making the pipe {}", "exec": "executing {}", "fork": "forking", "thread": "starting a thread",
    "connect": "connecting to {}", "listen": "listening on {}", "call": "system call {}",
}


def system_calls(act: Act) -> tuple[SystemCall, ...]:
    """What `act` asks of the kernel, in order."""
    if act.kind == "call":
        return () if act.call is None else (act.call,)
    if act.kind in ("connect", "listen") and (act.path or ":" in act.host):
        family = AF_UNIX if act.path else AF_INET6
        return (SystemCall(("socket",), (family, SOCK_STREAM | SOCK_CLOEXEC)), *KINDS[act.kind][1:])
    return KINDS[act.kind]


def said(act: Act) -> str:
    """The act in words."""
    if act.kind == "call" and act.call is not None:
        arguments = ", ".join(f"{value:#x}" if value > 9 else str(value) for value in act.call.arguments)
        return WORDS["call"].format(f"{act.call.names[0]}({arguments})")
    address = f"[{act.host}]:{act.port}" if ":" in act.host else f"{act.host}:{act.port}"
    return WORDS[act.kind].format(repr(act.path) if act.path else address)


PROGRAMS: Final = ("fork_exec", "_fork_exec", "posix_spawn", "posix_spawnp")
"""Callables that fork to start a program: who may fork cannot yet do what they are for."""

ASKED: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("fork", "forkpty", "vfork"), ("fork",)), "start_new_thread": ("thread",),
    **dict.fromkeys(PROGRAMS, ("fork", "exec")),
    **dict.fromkeys(("execv", "execve", "child_exception_type"), ("exec",)), "dlopen": ("open",),
    **dict.fromkeys(("connect", "connect_ex", "sendto", "sendmsg"), ("connect",)), **dict.fromkeys(("bind", "listen"), ("listen",)),
    "mkdir": ("mkdir",), "rmdir": ("rmdir",), **dict.fromkeys(("unlink", "remove"), ("remove",)),
    **dict.fromkeys(("rename", "replace"), ("rename",)), "link": ("link",), "symlink": ("symlink",),
    **dict.fromkeys(("chmod", "lchmod", "fchmod"), ("chmod",)), **dict.fromkeys(("chown", "lchown", "fchown"), ("chown",)),
    "utime": ("utime",), "truncate": ("truncate",), **dict.fromkeys(("mknod", "mkfifo"), ("mkfifo",)),
    **dict.fromkeys(("listdir", "scandir"), ("list",)), **dict.fromkeys(("open", "open_code", "FileIO"), ("open", "write", "list")),
    **dict.fromkeys(("stat", "lstat", "access", "statvfs", "readlink", "chdir"), ("stat",)),
}
"""The callable that a worker says was refused -> the acts that it may have been."""

ASKED_CALLS: Final = {
    "pidfd_send_signal": "pidfd_send_signal", "killpg": "kill", "nice": "setpriority", "setrlimit": "prlimit64",
    "prlimit": "prlimit64", "flock": "flock", "lockf": "fcntl", "sched_setscheduler": "sched_setscheduler",
    "eventfd": "eventfd2", "inotify_init": "inotify_init1", "umount": "umount2",
}
"""The callable -> its system call, where that has another name."""
