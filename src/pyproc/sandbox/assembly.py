"""Classic BPF instructions with named targets, linked to the bytes that the kernel loads. Knows nothing of profiles.

cBPF jumps only forward, and conditionally at most 255 instructions: a longer jump goes by an unconditional one beside it.
Which jumps are long is found by repeating until no more are: each that is lengthened moves what is behind it.
"""

from __future__ import annotations

import struct

from pyproc.sandbox.rules import ProfileError

INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS: the kernel refuses a longer program
JUMP_MAX = 255  # jt and jf are one byte

# opcodes, linux/bpf_common.h
LOAD, AND, JUMP, JEQ, JGT, JGE, JSET, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
INSTRUCTION = struct.Struct("<HBBI")  # code, jt, jf, k
NUMBER_OFFSET, ARCH_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16  # in struct seccomp_data


class Assembly:
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
