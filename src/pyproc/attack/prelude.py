"""What every attack finds in its namespace. Kept as text: it is sent into the sandbox with the attack.

Rules and reasons:
* Standard library only; what it imports, an attack need not import after the walls stand (or after a control has
  become a plain uid that cannot read the interpreter's files).
* `sc` goes past the C library's wrappers, which would refuse or emulate part of the calls.
* `machine_code` tries a writable and executable page first, then a memory file: two ways past W^X.
* `T` is the map of targets; `attack(T)` returns a text that begins with ESCAPED when it got what it wanted.
"""

from __future__ import annotations

ESCAPED = "ESCAPED"

PRELUDE = r"""
import ctypes, errno, fcntl, io, json, logging, mmap, os, pickle, random, resource, signal, socket, struct, subprocess
import sys, threading, time, traceback

libc = ctypes.CDLL(None, use_errno=True)
kept = []  # what a plant holds until its worker ends
libc.syscall.restype = ctypes.c_long


def number_call(number, *arguments):
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def sc(name, *arguments):
    return number_call(T["numbers"][name], *arguments)


def own_thread(pid):
    try:
        sc("tgkill", os.getpid(), pid, 0)
        return True
    except OSError:
        return False


def machine_code(code):
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    page = libc.mmap(None, 4096, 7, 0x22, -1, 0)
    if page in (None, 2**64 - 1):
        fd = os.memfd_create("code", 0)
        os.write(fd, code.ljust(4096, b"\xcc"))
        page = libc.mmap(None, 4096, 5, 2, fd, 0)
        if page in (None, 2**64 - 1):
            raise OSError(ctypes.get_errno(), "no executable memory")
    else:
        ctypes.memmove(page, code, len(code))
    return ctypes.CFUNCTYPE(ctypes.c_long)(page)()
"""
