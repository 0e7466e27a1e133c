"""Loads a filter by ctypes and runs one workload under it: `python -I -B under.py WORKLOAD`, the rest as JSON on stdin.

stdin: {"program": hex, "pid_at": offsets of words that become this pid, "listener": null or the number of seccomp(2)}.
With a listener the number that its descriptor will have is written to stdout before; whoever started this takes it and
answers from then on. What passes here owes nothing to the project's own boot code. Prints "done" at the end.

A workload may `from under import c, raw, refused`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def refused(call: Callable[..., object], *args: object, error: str = "EPERM", **options: object) -> None:
    """The call must fail with this errno, so that a wall that stands for another reason is not counted."""
    try:
        found = call(*args, **options)
    except OSError as problem:
        assert problem.errno == getattr(errno, error), problem
    else:
        raise AssertionError(f"{call} gave {found!r}")


def raw(number: int, *args: int) -> bool:
    """A system call by its number."""
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args]) < 0:
        raise OSError(ctypes.get_errno(), f"call {number}")
    return True


def c(name: str, *args: object) -> bool:
    """A function of the C library."""
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
    return True


def load(program: bytearray, pid_at: list[int], listener: int | None) -> None:
    for at in pid_at:
        program[at : at + 4] = os.getpid().to_bytes(4, "little")
    held = Program(len(program) // 8, bytes(program))
    c("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if listener is None:
        c("prctl", 22, 2, ctypes.byref(held), 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        return
    place = os.dup(0)
    os.close(place)
    print(place, flush=True)
    if libc.syscall(ctypes.c_long(listener), 1, 8, ctypes.byref(held)) != place:  # SET_MODE_FILTER, FLAG_NEW_LISTENER
        raise OSError(ctypes.get_errno(), "seccomp with a listener")


if __name__ == "__main__":
    sys.modules["under"] = sys.modules["__main__"]
    with open(sys.argv[1], encoding="utf-8") as file:
        code = compile(file.read(), sys.argv[1], "exec")
    told = json.loads(sys.stdin.readline())
    load(bytearray.fromhex(told["program"]), told["pid_at"], told["listener"])
    exec(code, {"__name__": "__workload__"})
    print("done")
