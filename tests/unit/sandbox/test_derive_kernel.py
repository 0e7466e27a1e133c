"""Both filters loaded one on the other in a real process, with a supervisor of a few lines at the other end.

    test                         zygote (a plain Python)            worker (its fork)
     | <---- listener's number --- seccomp(NEW_LISTENER)
     | -- pidfd_getfd
     | <=========== clone ======== fork ------------------------------> setsid, landlock, unshare, capset
     | <=========================================================== seccomp(second filter)
     | <=========================================================== tgkill, clone: judged and counted

What it shows that simulation cannot: the order of the answers in the kernel, that fork(3) gives FORK_FLAGS
and nothing else, and that the question about a worker's fork passes through a second filter that allows it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import struct
import subprocess
import sys
import time

import pytest

from pyproc.sandbox import derive, profile
from pyproc.sandbox.rules import MACHINES, syscall_table

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in MACHINES,
    reason="seccomp needs Linux on x86_64 or aarch64",
)

SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND = (
    0xC0502100,
    0xC0182101,
)  # linux/seccomp.h: sizes 80 and 24
PIDFD_GETFD = 438

ZYGOTE = """
import ctypes, errno, json, os, sys
plan = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
def program(text):
    raw = bytes.fromhex(text)
    return Program(len(raw) // 8, raw)
def call(name, *args):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in (plan["nr"][name], *args)]
    result = libc.syscall(*words)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(act, *args):
    try:
        act(*args)
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return 0
first, second = program(plan["zygote"]), bytearray.fromhex(plan["worker"])
assert libc.prctl(38, 1, 0, 0, 0) == 0
listener = call("seccomp", 1, 8, ctypes.byref(first))
print(listener, flush=True)
sys.stdin.readline()                         # the test holds the listener from here on
os.close(listener)
seen = {"filter at import": call("seccomp", 1, 0, ctypes.byref(first)), "socket": call("socket", 1, 1, 0)}
read, write = os.pipe()
if os.fork() == 0:
    found = {"setsid": attempt(os.setsid), "landlock": call("landlock_create_ruleset", 0, 0, 1)}
    found["unshare"], found["too much"] = call("unshare", 0x10000000), call("unshare", 0x50000000)
    for at in plan["offsets"]:
        second[at:at + 4] = os.getpid().to_bytes(4, "little")
    held = program(second.hex())
    found["second filter"] = call("seccomp", 1, 0, ctypes.byref(held))
    found["third filter"] = call("seccomp", 1, 0, ctypes.byref(held))
    found["fork"] = attempt(lambda: os.fork() or os._exit(0))
    found["setsid again"], found["unshare again"] = attempt(os.setsid), call("unshare", 0x10000000)
    mine, other = os.getpid(), os.getppid()
    found["own signal"] = call("tgkill", mine, mine, 0)
    found["foreign signal"] = call("tgkill", other, other, 0)
    import threading
    crew = threading.Thread(target=lambda: None); crew.start(); crew.join()
    found["capset"] = call("capset", 0, 0)
    os.write(write, json.dumps(found).encode())
    os._exit(0)
os.close(write)
seen |= json.loads(os.read(read, 65536))
print(json.dumps(seen), flush=True)
"""


class Supervisor:
    """Judges register arguments. Orders one fork and one filter, the second that is asked for."""

    def __init__(self, table: dict[int, str]) -> None:
        self.table, self.asked = table, list[tuple[str, int]]()

    def judge(self, name: str, pid: int, args: tuple[int, ...]) -> int:
        """0 to let the call go on, else the errno."""
        self.asked.append((name, args[0]))
        times = [call for call, _ in self.asked].count(name)
        if name == "clone":
            return 0 if args[0] == derive.FORK_FLAGS and times == 1 else errno.EPERM
        if name == "tgkill":
            return 0 if args[0] == pid else errno.EPERM
        return errno.EPERM if name == "seccomp" and times != 2 else 0

    def serve(self, listener: int, zygote: subprocess.Popen[str]) -> None:
        poll, limit = select.poll(), time.monotonic() + 60
        poll.register(listener, select.POLLIN)
        while zygote.poll() is None and time.monotonic() < limit:
            if not any(event & select.POLLIN for _, event in poll.poll(50)):
                continue
            request = bytearray(80)
            fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, request)
            number, pid, _, nr, _, _, *args = struct.unpack("=QIIiIQ6Q", request)
            error = self.judge(self.table[nr], pid, tuple(args))
            answer = struct.pack(
                "=QqiI", number, 0, -error, 0 if error else 1
            )  # 1: SECCOMP_USER_NOTIF_FLAG_CONTINUE
            fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, bytearray(answer))


def descriptor_of(pid: int, number: int) -> int:
    handle = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        found = int(libc.syscall(PIDFD_GETFD, handle, number, 0))
        if found < 0:
            pytest.skip(
                f"pidfd_getfd is refused ({os.strerror(ctypes.get_errno())}): the listener cannot be taken"
            )
        return found
    finally:
        os.close(handle)


@pytest.mark.parametrize("name", ["strict", "default"])
def test_two_filters_and_a_supervisor_confine_a_worker(name: str) -> None:
    base = profile.shipped(name)
    table = syscall_table(base.machine)
    program, offsets = derive.worker_template(base)
    plan = {
        "zygote": derive.zygote_filter(base).hex(),
        "worker": program.hex(),
        "offsets": offsets,
        "nr": dict(table),
    }
    supervisor = Supervisor({nr: call for call, nr in table.items()})
    with subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", ZYGOTE, json.dumps(plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as zygote:
        assert zygote.stdin is not None and zygote.stdout is not None
        listener = descriptor_of(zygote.pid, int(zygote.stdout.readline()))
        try:
            zygote.stdin.write("go\n")
            zygote.stdin.flush()
            supervisor.serve(listener, zygote)
            seen = json.loads(zygote.stdout.read())
        finally:
            os.close(listener)
            zygote.kill()
    assert seen["filter at import"] == "EPERM"
    assert (seen["setsid"], seen["second filter"], seen["own signal"]) == (0, 0, 0)
    assert seen["unshare"] in (0, "EPERM", "ENOSPC", "EINVAL"), (
        "asked and let go on; the host may still say no"
    )
    assert [
        seen[k]
        for k in ("too much", "third filter", "setsid again", "unshare again", "foreign signal", "capset")
    ] == ["EPERM"] * 6
    calls = [call for call, _ in supervisor.asked]
    assert calls.count("seccomp") == 2, "the third filter is refused by the second one and not asked about"
    assert calls.count("setsid") == calls.count("unshare") == 1
    if name == "strict":
        assert (seen["socket"], seen["fork"]) == ("EPERM", "EPERM")
        assert [flags for call, flags in supervisor.asked if call == "clone"] == [derive.FORK_FLAGS] * 2
    else:
        assert "clone" not in calls
