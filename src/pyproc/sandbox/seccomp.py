"""A profile as a classic BPF program: pure, no kernel call, no libseccomp. The boot loads the bytes.

    arch? --other--> KILL_PROCESS          the number of a call means nothing before its architecture is known
      | native
    nr >= 0x40000000 (x86_64) ----------> KILL_PROCESS    x32: the same calls by other numbers
      |
    binary search over runs of numbers with one answer --> ALLOW, ERRNO, ... or the argument rules of one call
      '-- above the newest we know ------> ERRNO ENOSYS   what libraries take for an older kernel

Rules and reasons:
* i386 (`int 0x80`) reaches a 64-bit process with another architecture value: ended, not refused, for nothing
  of ours calls so.
* A constant answer needs no argument, and then the kernel caches it per call (5.11 and newer): hot calls
  should have no arguments.
* cBPF jumps only forward and conditionally at most 255 instructions; a longer one goes by an unconditional
  jump beside it.
* The kernel sees arguments as 64 bits whatever the call declares. `width` 32 looks at the low half only,
  which is all that the kernel looks at for an int.
* Rejected: a chain of compares as libseccomp writes it (78 steps to futex, here about 10).
"""

from __future__ import annotations

import errno
import operator
import struct
from collections.abc import Callable, Sequence
from itertools import groupby

from pyproc.sandbox.profile import (
    ACTION_MASK,
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    TRACE,
    TRAP,
    U32,
    U64,
    Condition,
    Profile,
    ProfileError,
    Rule,
    syscall_table,
)

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h: both are 64 bit and little endian
AUDIT_ARCH_I386 = 0x40000003
X32_BIT = 0x40000000  # __X32_SYSCALL_BIT of x86_64
INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS: the kernel refuses a longer program
JUMP_MAX = 255  # jt and jf are one byte
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data

# opcodes, linux/bpf_common.h
LOAD, AND, JUMP, JEQ, JGT, JGE, JSET, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
INSTRUCTION = struct.Struct("<HBBI")  # code, jt, jf, k


class _Assembly:
    """Instructions with named targets; None is the next instruction."""

    def __init__(self) -> None:
        self.code: list[str | tuple[int, int, str | None, str | None]] = []
        self._labels = 0

    def label(self) -> str:
        self._labels += 1
        return f"L{self._labels}"

    def put(self, label: str) -> None:
        self.code.append(label)

    def add(self, op: int, k: int, yes: str | None = None, no: str | None = None) -> None:
        self.code.append((op, k, yes, no))

    def link(self) -> bytes:
        far: set[int] = set()
        while True:
            place, size = self._places(far)
            if size > INSTRUCTIONS_MAX:
                raise ProfileError(
                    f"filter has {size} instructions, limit is {INSTRUCTIONS_MAX}: use fewer argument rules"
                )
            over = self._too_far(place, far)
            if not over - far:
                return self._emit(place, far)
            far |= over

    def _places(self, far: set[int]) -> tuple[dict[str | int, int], int]:
        place: dict[str | int, int] = {}
        at = 0
        for i, item in enumerate(self.code):
            place[item if isinstance(item, str) else i] = at
            at += 0 if isinstance(item, str) else 3 if i in far else 1
        return place, at

    def _too_far(self, place: dict[str | int, int], far: set[int]) -> set[int]:
        over = set()
        for i, item in enumerate(self.code):
            if not isinstance(item, str) and i not in far and item[0] in (JEQ, JGT, JGE, JSET):
                targets = [place[t] - place[i] - 1 for t in item[2:] if t is not None]
                if min(targets, default=0) < 0:
                    raise AssertionError("cBPF jumps only forward: a label was put before its jump")
                if max(targets, default=0) > JUMP_MAX:
                    over.add(i)
        return over

    def _emit(self, place: dict[str | int, int], far: set[int]) -> bytes:
        out: list[bytes] = []
        for i, item in enumerate(self.code):
            if isinstance(item, str):
                continue
            op, k, yes, no = item
            after = place[i] + (3 if i in far else 1)
            to_yes, to_no = (0 if t is None else place[t] - after for t in (yes, no))
            if i in far:
                out += [INSTRUCTION.pack(op, 0, 1, k), INSTRUCTION.pack(JUMP, 0, 0, to_yes + 1)]
                out += [INSTRUCTION.pack(JUMP, 0, 0, to_no)]
            elif op == JUMP:
                out.append(INSTRUCTION.pack(JUMP, 0, 0, to_yes))
            else:
                out.append(INSTRUCTION.pack(op, to_yes, to_no, k))
        return b"".join(out)


def compile_profile(profile: Profile) -> bytes:
    """The program for `profile`: struct sock_filter[]. Raises ProfileError above INSTRUCTIONS_MAX."""
    code, ends = _Assembly(), dict[int, str]()

    def end(action: int) -> str:
        return ends.setdefault(action, f"end {action:#x}")

    rules: dict[int, list[Rule]] = {}
    for rule in profile.rules:
        chain = rules.setdefault(rule.number, [])
        if not chain or chain[-1].conditions:  # behind an unconditional rule nothing is reached
            chain.append(rule)
    top = max(syscall_table(profile.machine).values())
    runs: list[tuple[int, str]] = []
    for number in range(top + 1):
        chain = rules.get(number, [])
        target = (
            f"call {number}"
            if chain and chain[0].conditions
            else end(chain[0].action if chain else profile.default)
        )
        if not runs or runs[-1][1] != target:
            runs.append((number, target))
    runs.append((top + 1, end(ERRNO | errno.ENOSYS)))

    code.add(LOAD, _ARCH)
    code.add(JEQ, AUDIT_ARCH[profile.machine], None, end(KILL_PROCESS))
    code.add(LOAD, _NR)
    if profile.machine == "x86_64":
        code.add(JGE, X32_BIT, end(KILL_PROCESS))
    _search(code, runs)
    for action, label in ends.items():
        code.put(label)
        code.add(RETURN, action)
    for number, chain in sorted(rules.items()):
        if chain[0].conditions:
            code.put(f"call {number}")
            _chain(code, chain, profile.default)
    return code.link()


def _search(code: _Assembly, runs: Sequence[tuple[int, str]]) -> None:
    """Binary search, a left half directly behind its node: every jump goes forward."""
    if len(runs) == 1:
        code.add(JUMP, 0, runs[0][1])
        return
    middle = len(runs) // 2
    left, right = runs[:middle], runs[middle:]
    upper = right[0][1] if len(right) == 1 else code.label()
    code.add(JGE, runs[middle][0], upper, left[0][1] if len(left) == 1 else None)
    if len(left) > 1:
        _search(code, left)
    if len(right) > 1:
        code.put(upper)
        _search(code, right)


def _switch(rule: Rule) -> tuple[object, ...]:
    """Alternatives with equal keys compare one word under one mask: it is loaded once for all of them."""
    if len(rule.conditions) == 1:
        c = rule.conditions[0]
        if c.width == 32 and c.op == "SCMP_CMP_EQ":
            return (c.index, U32, rule.action)
        if c.op == "SCMP_CMP_MASKED_EQ" and c.value <= U32:
            return (c.index, c.value, rule.action)
    return (id(rule),)


def _chain(code: _Assembly, rules: Sequence[Rule], default: int) -> None:
    for _, alike in groupby(rules, _switch):
        group = list(alike)
        following = code.label()
        if len(group) > 1:
            matched, first = code.label(), group[0].conditions[0]
            code.add(LOAD, _ARGS + 8 * first.index)
            if first.op == "SCMP_CMP_MASKED_EQ":
                code.add(AND, first.value)
            for rule in group[:-1]:
                code.add(JEQ, _datum(rule.conditions[0]), matched)
            code.add(JEQ, _datum(group[-1].conditions[0]), None, following)
            code.put(matched)
        for condition in group[0].conditions if len(group) == 1 else ():
            _test(code, condition, following)
        code.add(RETURN, group[0].action)
        code.put(following)
    if rules[-1].conditions:
        code.add(RETURN, default)


def _datum(c: Condition) -> int:
    return c.value_two if c.op == "SCMP_CMP_MASKED_EQ" else c.value


def _test(code: _Assembly, c: Condition, fail: str) -> None:
    """Fall through where the condition holds, else go to `fail`."""
    low, high = _ARGS + 8 * c.index, _ARGS + 8 * c.index + 4
    wide, (upper, lower), passed = c.width == 64, divmod(c.value, 2**32), code.label()
    match c.op.removeprefix("SCMP_CMP_"):
        case "MASKED_EQ":
            for offset, mask, want in ((high, upper, c.value_two >> 32), (low, lower, c.value_two & U32)):
                if mask or offset == low:
                    code.add(LOAD, offset)
                    code.add(AND, mask)
                    code.add(JEQ, want, None, fail)
        case "EQ":
            for offset, want in ((high, upper), (low, lower)) if wide else ((low, lower),):
                code.add(LOAD, offset)
                code.add(JEQ, want, None, fail)
        case "NE":
            if wide:
                code.add(LOAD, high)
                code.add(JEQ, upper, None, passed)
            code.add(LOAD, low)
            code.add(JEQ, lower, fail)
        case order:
            greater = order in ("GT", "GE")
            if wide:
                code.add(LOAD, high)
                code.add(JGT, upper, *((passed, None) if greater else (fail, None)))
                code.add(JEQ, upper, None, fail if greater else passed)
            code.add(LOAD, low)
            op, yes = {"GT": (JGT, True), "GE": (JGE, True), "LT": (JGE, False), "LE": (JGT, False)}[order]
            code.add(op, lower, *((None, fail) if yes else (fail, None)))
    code.put(passed)


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
