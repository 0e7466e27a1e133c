"""Loads compiled seccomp filters; what they say is decided and compiled by the supervisor.

The zygote's filter is loaded with a listener: calls that only the supervisor may decide (fork, the steps by which a
worker confines itself further) wait there for its answer. The listener's descriptor stays here only until the
supervisor has taken it by pidfd_getfd(2). A filter cannot be removed, and NO_NEW_PRIVS must stand before it.
"""

from __future__ import annotations

import ctypes

from pyproc_worker.jail import libc

SET_MODE_FILTER, FLAG_NEW_LISTENER = 1, 8


class Program(ctypes.Structure):
    """struct sock_fprog over a buffer of struct sock_filter[], whose words may be overwritten until it is loaded."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
    filter: int
    code: ctypes.Array[ctypes.c_char]

    @classmethod
    def of(cls, code: bytes) -> Program:
        """A copy of `code`."""
        buffer = ctypes.create_string_buffer(code, len(code))
        program = cls(len(code) // 8, ctypes.addressof(buffer))
        program.code = buffer
        return program

    @property
    def words(self) -> memoryview:
        """The program as 32-bit words, two for each struct sock_filter."""
        return memoryview(self.code).cast("B").cast("I")


def prepared(program: Program, *, listener: bool = False) -> libc.Prepared:
    """The call that loads `program`, which the caller keeps alive; its result is the listener's descriptor, or 0."""
    flags = FLAG_NEW_LISTENER if listener else 0
    return libc.prepare("seccomp", SET_MODE_FILTER, flags, ctypes.c_void_p(ctypes.addressof(program)))


def load(code: bytes, *, listener: bool = False) -> int:
    """Load `code` (struct sock_filter[]); returns the listener's descriptor, or 0. Raises OSError."""
    program = Program.of(code)
    return libc.issue((prepared(program, listener=listener),))
