"""Raw system calls by ctypes: the jail's only door to the kernel.

Numbers from 424 up are the same on every architecture; the older ones stand in a table for x86_64 and aarch64. Every
call raises OSError with the call's name. No C helper and no libseccomp: a library found at run time is one more thing
to trust (rejected: prctl and friends by `ctypes.util.find_library`, which runs a compiler).

A `Prepared` call, its name and its values for C, is converted ahead and issued later, in a forked process: there each object that
is touched or made costs the copy of a page.
"""

from __future__ import annotations

import ctypes
import os
from errno import ENOSYS

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_OLD = {
    "x86_64": {"pivot_root": 155, "prctl": 157, "seccomp": 317, "capset": 126, "mount": 165, "umount2": 166,
               "unshare": 272, "setsid": 112, "close": 3, "openat": 257, "dup3": 292},
    "aarch64": {"pivot_root": 41, "prctl": 167, "seccomp": 277, "capset": 91, "mount": 40, "umount2": 39,
                "unshare": 97, "setsid": 157, "close": 57, "openat": 56, "dup3": 24},
}
NUMBERS: dict[str, int] = {
    **_OLD.get(os.uname().machine, {}),
    "open_tree": 428, "move_mount": 429, "close_range": 436, "pidfd_getfd": 438, "mount_setattr": 442,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
}

Argument = int | bytes | None | ctypes.c_long | ctypes.c_void_p
Prepared = tuple[str, tuple[bytes | ctypes.c_long | ctypes.c_void_p | None, ...]]


def prepare(name: str, *arguments: Argument) -> Prepared:
    """System call `name` of NUMBERS for `issue`; bytes are passed as pointers, ints as longs. Raises OSError if unknown."""
    if name not in NUMBERS:
        raise OSError(ENOSYS, f"{name}: no number known on {os.uname().machine}; x86_64 and aarch64 are supported")
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return name, (ctypes.c_long(NUMBERS[name]), *converted)


def issue(calls: tuple[Prepared, ...] | list[Prepared]) -> int:
    """Issue `calls` in order; the result of the last one. Raises OSError naming the first that fails."""
    result = 0
    for name, values in calls:
        result = _syscall(*values)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def call(name: str, *arguments: Argument) -> int:
    """Issue system call `name`; bytes are passed as pointers, ints as longs. Raises OSError on failure."""
    return issue((prepare(name, *arguments),))


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2); see linux/prctl.h for the options."""
    return call("prctl", option, a, b, c, d)


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in `keep`, by close_range(2) (Linux 5.9) or, where there is none, one by one."""
    low = 0
    try:
        for fd in sorted(keep):
            if fd > low:
                call("close_range", low, fd - 1, 0)
            low = fd + 1
        call("close_range", low, 0xFFFFFFFF, 0)
    except OSError as error:
        if error.errno != ENOSYS:
            raise
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in keep:
                os.closerange(int(name), int(name) + 1)  # the listing's own is closed already, which is no error here
