"""What the kernel refused a function, read off its exception for the supervisor's log: errno, path, and who asked.

A refusal by seccomp or Landlock leaves no trace in the kernel's log; the exception is all there is. It is built by code that the
script owns, so what is told here is a hint: the supervisor bounds it, marks it untrusted and compares it with the plan (ADR 0009).

Rules: fields are read through the built-in descriptors, types are compared by `type()`, nothing of the exception's own runs
(`failure` says why). An exception that was raised while another was handled is searched too, outermost first: libraries wrap.
C functions have no frame of their own, so who asked is looked up in the expression that raised.
"""

from __future__ import annotations

import os
from errno import (
    EACCES,
    EAFNOSUPPORT,
    EAGAIN,
    EDQUOT,
    EFBIG,
    EMFILE,
    ENETUNREACH,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    EPERM,
    EROFS,
    EXDEV,
)
from types import CodeType, TracebackType
from typing import Any, Final

from pyproc_wire.limits import REFUSED_PATH_BYTES
from pyproc_wire.messages import Refused
from pyproc_wire.texts import cut

REFUSALS: Final = frozenset({
    EACCES, EAFNOSUPPORT, EAGAIN, EDQUOT, EFBIG, EMFILE, ENETUNREACH, ENOENT, ENOMEM, ENOSPC, ENOSYS, EPERM, EROFS, EXDEV,
})  # fmt: skip
"""What the layers of the sandbox, and its limits, answer."""

CHAIN_MAX: Final = 16
"""Exceptions of a chain that are looked at: a chain may be a circle."""

FORKS: Final = ("fork", "forkpty", "vfork", "fork_exec", "_fork_exec", "posix_spawn", "posix_spawnp", "start_new_thread")
"""Callables of the standard library behind which there is a fork or a clone."""

CALLABLES: Final = (
    *FORKS,
    "child_exception_type",  # subprocess raises in the parent what its child met: the program could not be executed
    "execv", "execve", "dlopen",
    "connect", "connect_ex", "bind", "listen", "sendto", "sendmsg", "setsockopt", "getsockopt", "socket", "socketpair",
    "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "chmod", "lchmod", "fchmod", "chown", "lchown",
    "fchown", "utime", "truncate", "ftruncate", "mknod", "mkfifo", "readlink", "chdir", "chroot",
    "listdir", "scandir", "open", "open_code", "FileIO", "stat", "lstat", "access", "statvfs",
    "kill", "killpg", "pidfd_open", "pidfd_send_signal", "setpriority", "nice", "sched_setaffinity", "sched_setscheduler",
    "setrlimit", "prlimit", "setuid", "setgid", "setgroups", "setsid", "setpgid", "unshare", "setns", "sethostname",
    "memfd_create", "mmap", "flock", "lockf", "fcntl", "ioctl", "sendfile", "copy_file_range", "eventfd", "timerfd_create",
    "inotify_init", "mount", "umount", "setxattr", "getxattr", "read", "write",
)  # fmt: skip
"""Who may have asked, the telling names first: an expression can hold several."""


def refused_of(error: BaseException) -> Refused | None:
    """The first refusal in the chain of `error`, if there is one. May raise whatever odd exceptions make the reading raise."""
    seen: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting and len(seen) < CHAIN_MAX:
        error = waiting.pop(0)
        if any(error is other for other in seen):
            continue
        seen.append(error)
        found = _refusal(error)
        if found is not None:
            return found
        for name in ("__cause__", "__context__"):
            other = field(BaseException, name, error)
            if isinstance(other, BaseException):
                waiting.append(other)
    return None


def _refusal(error: BaseException) -> Refused | None:
    kind = type(error)
    if issubclass(kind, ModuleNotFoundError):
        name = field(ImportError, "name", error)
        return Refused(ENOENT, _text(name), "import") if type(name) is str else None
    if not issubclass(kind, OSError):
        return None
    code = field(OSError, "errno", error)
    if type(code) is not int or code not in REFUSALS:
        return None
    try:
        names = names_behind(traceback_of(error))
    except OSError:  # no descriptor is left for an import: errno and path are told all the same
        names = set()
    asked = next((name for name in CALLABLES if name in names), None)
    return Refused(code, _text(field(OSError, "filename", error)), asked)


def _text(path: object) -> str | None:
    if type(path) is bytes:
        path = os.fsdecode(path)
    return cut(path, REFUSED_PATH_BYTES) if type(path) is str else None  # a descriptor is a number, and tells nothing here


def names_behind(trace: TracebackType | None) -> set[str]:
    """The names that the innermost expression of a traceback uses."""
    if trace is None:
        return set()
    while trace.tb_next is not None:
        trace = trace.tb_next
    return _names_at(trace.tb_frame.f_code, trace.tb_lasti)


def _names_at(code: CodeType, offset: int) -> set[str]:
    import dis  # few workers ever fail so

    instructions = list(dis.get_instructions(code))
    # A call into Python leaves the offset in the cache behind the instruction.
    found = max((i for i in instructions if i.offset <= offset), key=lambda i: i.offset, default=None)
    if found is None or found.positions is None or found.positions.lineno is None:
        return set()
    outer = found.positions
    return {
        str(i.argval) for i in instructions
        if i.positions is not None and isinstance(i.argval, str) and i.opname != "LOAD_CONST" and _inside(i.positions, outer)
    }  # fmt: skip


def _inside(inner: Any, outer: Any) -> bool:
    if None in inner or None in outer:
        return bool(inner.lineno == outer.lineno)
    return bool(
        (outer.lineno, outer.col_offset) <= (inner.lineno, inner.col_offset)
        and (inner.end_lineno, inner.end_col_offset) <= (outer.end_lineno, outer.end_col_offset)
    )


def traceback_of(error: BaseException) -> TracebackType | None:
    """Its own traceback, whatever its class has put in the place."""
    trace = field(BaseException, "__traceback__", error)
    return trace if isinstance(trace, TracebackType) else None


def field(kind: type, name: str, owner: object) -> Any:
    """A built-in attribute, whatever the class of `owner` has put in its place."""
    return kind.__dict__[name].__get__(owner)
