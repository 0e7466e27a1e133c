"""Runs a workload under a profile's worker filter and tells which of the allowed calls it made.

    parent                                        child: under.py
      |<------------- number of the listener --------| stdout
      |                                              | seccomp(FILTER, NEW_LISTENER): every call that the worker filter
      |-- pidfd_getfd --> the listener               | allows, or answers ENOSYS, is asked about
      |<------------- call ------------------------->| noted, and answered as the worker filter answers it

Rules and reasons:
* The filter is the worker's own, with its ALLOW and ENOSYS turned into questions: one run shows that the workload works
  under the filter, and which calls it makes. Refusals stay what they are.
* Rejected: strace (a program that may be missing; it sees the loader too), SECCOMP_RET_LOG (the log belongs to root).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

from pyproc.sandbox import derive, profile, seccomp
from pyproc.sandbox.rules import ALLOW, ERRNO, NOTIFY, syscall_table

UNDER = Path(__file__).resolve().parent / "workloads" / "under.py"
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1  # SECCOMP_IOCTL_NOTIF_*, linux/seccomp.h: sizes 80 and 24
NOTIF, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
PIDFD_GETFD = 438
ENOSYS = ERRNO | 38
SECONDS = 120


@dataclass
class Run:
    """How a run ended, and the names of the calls it made; none where they are not observed."""

    code: int
    out: str
    err: str
    calls: set[str] = field(default_factory=set)


def asking(program: bytes) -> bytes:
    """`program` with its ALLOW and ENOSYS turned into questions."""
    asked = [
        (code, yes, no, NOTIFY if code == 0x06 and k in (ALLOW, ENOSYS) else k)
        for code, yes, no, k in seccomp.INSTRUCTION.iter_unpack(program)
    ]
    return b"".join(seccomp.INSTRUCTION.pack(*one) for one in asked)


def listener_of(pid: int, place: int) -> int:
    """A copy of descriptor `place` of a child, as soon as it is a listener."""
    libc, held = ctypes.CDLL(None, use_errno=True), os.pidfd_open(pid)
    try:
        while True:
            found: int = libc.syscall(ctypes.c_long(PIDFD_GETFD), held, place, 0)
            if found >= 0:
                return found
            if ctypes.get_errno() != 9 or select.select([held], [], [], 0.001)[0]:  # EBADF: not yet
                raise OSError(ctypes.get_errno(), f"descriptor {place} of {pid} cannot be taken")
    finally:
        os.close(held)


def why_not() -> str:
    """Why calls cannot be observed here; empty where they can. A container may refuse pidfd_getfd: then nothing is noted."""
    libc, held = ctypes.CDLL(None, use_errno=True), os.pidfd_open(os.getpid())
    copied: int = libc.syscall(ctypes.c_long(PIDFD_GETFD), held, held, 0)
    problem = ctypes.get_errno()
    for fd in (held, copied) if copied >= 0 else (held,):
        os.close(fd)
    return "" if copied >= 0 else f"pidfd_getfd is refused here ({os.strerror(problem)}): calls cannot be observed"


def answer(listener: int, program: bytes, names: dict[int, str], seen: set[str]) -> None:
    """Answer every question as `program` does, until no process is left that could ask."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not any(event & select.POLLHUP for _, event in poll.poll()):
        question = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(listener, RECEIVE, question)
            ident, _, _, number, arch, _, *args = NOTIF.unpack(question)
            seen.add(names.get(number, str(number)))
            refuse = seccomp.simulate(program, number, args, arch) == ENOSYS
            fcntl.ioctl(listener, SEND, bytearray(ANSWER.pack(ident, 0, -38 if refuse else 0, 0 if refuse else CONTINUE)))
        except (FileNotFoundError, InterruptedError):  # who asked was ended, or got a signal and asks again
            continue


def run(python: str, name: str, workload: Path, scratch: Path, *, observed: bool) -> Run:
    """Run `workload` with `python` under the worker filter of the shipped profile `name`."""
    base = profile.shipped(name)
    program, offsets = derive.worker_template(base)
    table = syscall_table(base.machine)
    told = {
        "program": (asking(program) if observed else program).hex(), "pid_at": list(offsets),
        "listener": table["seccomp"] if observed else None,
    }  # fmt: skip
    clean = {"PATH": os.environ.get("PATH", ""), "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "TMPDIR": str(scratch)}
    child = subprocess.Popen(
        [python, "-I", "-B", str(UNDER), str(workload)], env=clean, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    calls: set[str] = set()
    listener, thread = -1, None
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(told) + "\n")
        child.stdin.flush()
        if observed and (place := child.stdout.readline().strip()):
            patched = derive.patch_pid(program, offsets, child.pid)
            names = {number: call for call, number in table.items()}
            listener = listener_of(child.pid, int(place))
            thread = threading.Thread(target=answer, args=(listener, patched, names, calls))
            thread.start()
        out, err = child.communicate(timeout=SECONDS)
    finally:
        child.kill()
        child.wait()
        if thread is not None:
            thread.join(SECONDS)
        if listener >= 0:
            os.close(listener)
    return Run(child.returncode, out, err, calls)
