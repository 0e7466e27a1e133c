"""Loads compiled seccomp filters; what they say is decided and compiled by the supervisor.

The zygote's filter is loaded with a listener: calls that only the supervisor may decide (fork, the steps by which a
worker confines itself further) wait there for its answer. The listener's descriptor stays here only until the
supervisor has taken it by pidfd_getfd(2). A filter cannot be removed, and NO_NEW_PRIVS must stand before it.
"""

from __future__ import annotations

import ctypes
import os

from pyproc_worker.jail import libc

SET_MODE_FILTER, FLAG_NEW_LISTENER = 1, 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, *, listener: bool = False) -> int:
    """Load `program` (struct sock_filter[]); returns the listener's descriptor, or 0. Raises OSError."""
    header = _Program(len(program) // 8, program)
    result = int(libc._syscall(
        ctypes.c_long(libc.NUMBERS["seccomp"]), ctypes.c_long(SET_MODE_FILTER),
        ctypes.c_long(FLAG_NEW_LISTENER if listener else 0), ctypes.byref(header)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
    return result
