"""What a filter answers to one call, without a kernel: an interpreter of the part of cBPF that our programs use; answers in words.

For the checks of derived filters and for explaining one. A program that the kernel would not accept is an error here.
"""

from __future__ import annotations

import errno
import operator
import struct
from collections.abc import Callable, Sequence

from pyproc.sandbox.assembly import AND, INSTRUCTION, JEQ, JGE, JGT, JSET, JUMP, LOAD, RETURN
from pyproc.sandbox.rules import (
    ACTION_MASK,
    ALLOW,
    AUDIT_ARCH,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    TRACE,
    TRAP,
    U32,
    U64,
)

_COMPARE: dict[int, Callable[[int, int], int]] = {
    JEQ: operator.eq,
    JGT: operator.gt,
    JGE: operator.ge,
    JSET: operator.and_,
}


def simulate(program: bytes, nr: int, args: Sequence[int] = (), arch: int = AUDIT_ARCH["x86_64"]) -> int:
    """What the kernel would answer: interprets `program` on one call; arguments that are not given are 0.

    Raises ValueError for a program that the kernel would not accept.
    """
    six = [a & U64 for a in (*args, 0, 0, 0, 0, 0, 0)[:6]]
    words = struct.unpack("<16I", struct.pack("<IIQ6Q", nr & U32, arch, 0, *six))
    at = accumulator = 0
    while 0 <= at < len(program) // INSTRUCTION.size:
        op, yes, no, k = INSTRUCTION.unpack_from(program, at * INSTRUCTION.size)
        at += 1
        if op == LOAD and k % 4 == 0 and k < 64:
            accumulator = words[k // 4]
        elif op == AND:
            accumulator &= k
        elif op == JUMP:
            at += k
        elif op in _COMPARE:
            at += yes if _COMPARE[op](accumulator, k) else no
        elif op == RETURN:
            return int(k)
        else:
            raise ValueError(
                f"filter has opcode {op:#x} with {k:#x} at {at - 1}: not one that seccomp accepts here"
            )
    raise ValueError(f"filter ends without an answer at {at}")


_WORDS = {
    KILL_PROCESS: "end the process",
    KILL_THREAD: "end the thread",
    TRAP: "signal SIGSYS",
    NOTIFY: "ask the supervisor",
    TRACE: "ask the tracer",
    LOG: "allow and log",
    ALLOW: "allow",
}


def spelled(action: int) -> str:
    """An answer in words: allow, refuse EPERM, ask the supervisor, end the process, ..."""
    if action & ACTION_MASK == ERRNO:
        return f"refuse {errno.errorcode.get(action & 0xFFFF, str(action & 0xFFFF))}"
    return _WORDS[action & ACTION_MASK]
