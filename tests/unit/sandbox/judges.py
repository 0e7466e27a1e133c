"""Three judges of a filter that share no code with the package: a cBPF machine, a reading of the JSON, and libseccomp.

    draw() ──▶ (arch, number, six arguments) × N ──▶ machine(program)  ┐
                                                 └─▶ policy(JSON)      ┴─▶ must be equal, lane by lane

Rules and reasons:
* All work on arrays, a column for each call, so that millions are compared in seconds. The machine walks a program once
  from front to back, as cBPF jumps only forward, with the set of lanes that stand at each instruction.
* The policy reads the document as it is written in the file: entries, `includes`, alternatives, first match.
* Tuples are drawn near the values of the rules, else nearly all would be refused and prove nothing.
"""

from __future__ import annotations

import ctypes
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
KILL, ENOSYS = 0x80000000, 0x50000 | 38
VALUES = {
    "SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_NOTIFY": 0x7FC00000, "SCMP_ACT_TRAP": 0x30000, "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_KILL_PROCESS": KILL,
}  # fmt: skip
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # libseccomp numbers them from 1 in this order
LANES = 1 << 16  # of one batch: some MiB, which stay in the cache
Calls = tuple[np.ndarray, np.ndarray, np.ndarray]  # uint32 architectures, uint32 numbers, uint64 arguments as (6, N)


def machine(program: bytes, calls: Calls) -> np.ndarray:
    """What each lane of `calls` is answered. Raises for an instruction that seccomp does not accept."""
    arch, number, args = calls
    words = [number, arch, np.zeros_like(arch), np.zeros_like(arch)]
    for arg in args:
        words += [(arg & np.uint64(0xFFFFFFFF)).astype(np.uint32), (arg >> np.uint64(32)).astype(np.uint32)]
    code = list(struct.iter_unpack("=HBBI", program))
    standing: list[list[np.ndarray]] = [[] for _ in code]
    standing[0].append(np.arange(len(arch)))
    register, answers = np.zeros(len(arch), np.uint32), np.zeros(len(arch), np.uint32)
    seen = 0
    for at, (op, yes, no, k) in enumerate(code):
        lanes = np.concatenate(standing[at]) if standing[at] else np.empty(0, np.int64)
        standing[at] = []
        if not len(lanes):
            continue
        if op == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            register[lanes] = words[k // 4][lanes]
            standing[at + 1].append(lanes)
        elif op == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            register[lanes] &= np.uint32(k)
            standing[at + 1].append(lanes)
        elif op == 0x05:  # BPF_JMP | BPF_JA
            standing[at + 1 + k].append(lanes)
        elif op in (0x15, 0x25, 0x35, 0x45):
            held, other = register[lanes], np.uint32(k)
            holds = {0x15: held == other, 0x25: held > other, 0x35: held >= other, 0x45: held & other != 0}[op]
            standing[at + 1 + yes].append(lanes[holds])
            standing[at + 1 + no].append(lanes[~holds])
        elif op == 0x06:  # BPF_RET | BPF_K
            answers[lanes] = k
            seen += len(lanes)
        else:
            raise AssertionError(f"opcode {op:#x} at {at}")
    assert seen == len(arch), "some calls got no answer"
    return answers


def entries(raw: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The entries of the document that are meant for this machine, Linux 6.1, no capability."""

    def chosen(entry: dict[str, Any]) -> bool:
        wants, bans = entry.get("includes") or {}, entry.get("excludes") or {}
        newer = [tuple(map(int, f["minKernel"].split("."))) <= (6, 1) for f in (wants, bans) if f.get("minKernel")]
        assert not bans.get("minKernel"), "not drawn by any document here"
        wanted = not wants.get("caps") and GO_NAMES[name] in (wants.get("arches") or [GO_NAMES[name]]) and all(newer)
        return wanted and GO_NAMES[name] not in (bans.get("arches") or [])

    return [entry for entry in raw["syscalls"] if chosen(entry)]


def holds(cond: dict[str, Any], args: np.ndarray) -> np.ndarray:
    seen = args[cond["index"]]
    if cond.get("width", 64) == 32:
        seen = seen % np.uint64(2**32)
    value, two = np.uint64(cond["value"]), np.uint64(cond.get("valueTwo", 0))
    match cond["op"].removeprefix("SCMP_CMP_"):
        case "NE":
            return seen != value
        case "LT":
            return seen < value
        case "LE":
            return seen <= value
        case "EQ":
            return seen == value
        case "GE":
            return seen >= value
        case "GT":
            return seen > value
    return seen & value == two


def policy(raw: dict[str, Any], table: dict[str, int], name: str, calls: Calls) -> np.ndarray:
    """What the document says of each lane."""
    arch, number, args = calls
    answers = np.full(len(arch), 0x50000 | int(raw.get("defaultErrnoRet", 1)), np.uint32)
    order = np.argsort(number, kind="stable")
    ranks = number[order]
    open_lanes = np.ones(len(arch), bool)
    for entry in entries(raw, name):
        conds = entry.get("args") or []
        repeated = len({c["index"] for c in conds}) < len(conds)
        action = VALUES[entry["action"]] if entry["action"] in VALUES else 0x50000 | entry.get("errnoRet", 1)
        for call in entry["names"]:
            if call not in table:
                continue
            first, last = np.searchsorted(ranks, [table[call], table[call] + 1])
            lanes = order[first:last]
            lanes = lanes[open_lanes[lanes]]
            found = [holds(c, args[:, lanes]) for c in conds]
            if conds:
                lanes = lanes[np.logical_or.reduce(found) if repeated else np.logical_and.reduce(found)]
            answers[lanes] = action
            open_lanes[lanes] = False
    answers[number > max(table.values())] = ENOSYS
    answers[arch != ARCHES[name]] = KILL
    if name == "x86_64":
        answers[number >= 0x40000000] = KILL
    return answers


def draw(rng: np.random.Generator, raw: dict[str, Any], table: dict[str, int], name: str, count: int) -> Iterator[Calls]:
    """`count` calls near what the rules look at, in batches."""
    rules = [(table[n], e.get("args") or []) for e in entries(raw, name) for n in e["names"] if n in table]
    while count > 0:
        lanes = min(count, LANES)
        count -= lanes
        junk = rng.integers(0, 2**64, (6, lanes), np.uint64)
        kind = rng.integers(0, 5, (6, lanes))
        args = np.choose(kind, [np.uint64(0), np.uint64(1), np.uint64(5), junk >> np.uint64(32), junk])
        which = np.sort(rng.integers(0, len(rules), lanes))
        edges = np.searchsorted(which, np.arange(len(rules) + 1))
        number = np.array([nr for nr, _ in rules], np.uint32)[which]
        for (_, conds), first, last in zip(rules, edges, edges[1:], strict=False):
            for c in conds if last > first else ():
                args[c["index"], first:last] = near(rng, c, int(last - first))
        arch = np.full(lanes, ARCHES[name], np.uint32)
        odd = rng.random(lanes) < 0.05
        known = [*ARCHES.values(), 0x40000003, 0x40000028]
        arch[odd] = np.where(rng.random(odd.sum()) < 0.8, rng.choice(known, odd.sum()), rng.integers(0, 2**32, odd.sum()))
        odd = rng.random(lanes) < 0.15
        some = rng.integers(0, 600, odd.sum())
        wild = [some, rng.integers(0, 2**32, odd.sum()), some | 0x40000000, np.full(odd.sum(), 2**32 - 1), 469 + some % 2]
        number[odd] = np.choose(rng.integers(0, len(wild), odd.sum()), wild)
        yield arch, number, args


def near(rng: np.random.Generator, cond: dict[str, Any], lanes: int) -> np.ndarray:
    """Values at, just beside, and at one bit's distance from what a condition compares with."""
    junk = rng.integers(0, 2**64, lanes, np.uint64)
    value = np.full(lanes, cond["value"], np.uint64)
    if cond["op"] == "SCMP_CMP_MASKED_EQ":
        value = np.uint64(cond.get("valueTwo", 0)) | (junk & ~value)
    value = value + rng.choice(np.array([0, 0, 0, 0, 0, 1, 2**64 - 1], np.uint64), lanes)  # wraps
    flips = [np.uint64(0), np.uint64(0), np.uint64(1) << (junk % np.uint64(64)), (junk >> np.uint64(32)) << np.uint64(32)]
    return value ^ np.choose(rng.integers(0, 4, lanes), flips)


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def libseccomp() -> Any:
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp.so.2 is not installed (Debian: libseccomp2): nothing to compare the compiler with")
    found.seccomp_init.restype = ctypes.c_void_p
    return found


def their_program(lib: Any, raw: dict[str, Any], name: str) -> tuple[bytes, set[str]]:
    """A document without widths as runc gives it to libseccomp, and the names that this libseccomp does not know."""
    default, unknown = 0x50000 | int(raw.get("defaultErrnoRet", 1)), set()
    held = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
    try:
        for token in ARCHES.values():
            lib.seccomp_arch_remove(held, ctypes.c_uint32(token))
        assert lib.seccomp_arch_add(held, ctypes.c_uint32(ARCHES[name])) == 0
        assert lib.seccomp_attr_set(held, 2, ctypes.c_uint32(KILL)) == 0  # SCMP_FLTATR_ACT_BADARCH
        for entry in entries(raw, name):
            action = VALUES[entry["action"]] if entry["action"] in VALUES else 0x50000 | entry.get("errnoRet", 1)
            conds = [
                Comparison(c["index"], OPERATORS.index(c["op"].removeprefix("SCMP_CMP_")) + 1, c["value"], c.get("valueTwo", 0))
                for c in entry.get("args") or []
            ]
            split = len({c.arg for c in conds}) < len(conds)
            for call in entry["names"] if action != default else ():
                number = lib.seccomp_syscall_resolve_name(call.encode())
                if number == -1:  # __NR_SCMP_ERROR
                    unknown.add(call)
                    continue
                for chain in [[c] for c in conds] if split else [conds]:
                    told = (Comparison * max(len(chain), 1))(*chain)
                    code = lib.seccomp_rule_add_array(held, ctypes.c_uint32(action), number, len(chain), told)
                    assert code in (0, -17, -33), (call, code)  # EEXIST; EDOM: not on this machine
        with tempfile.TemporaryFile() as file:
            assert lib.seccomp_export_bpf(held, file.fileno()) == 0
            file.seek(0)
            return file.read(), unknown
    finally:
        lib.seccomp_release(held)
