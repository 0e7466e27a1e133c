"""Signals by pidfd reach whom they mean, and exit statuses are told whoever reaped."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pyproc.host import libc, pidfd

Held = Callable[[int], int]
Start = Callable[..., "subprocess.Popen[bytes]"]
SLEEP = "say(); sys.stdin.read()"


def told(fd: int, pid: int) -> int | None:
    """The exit status once the kernel tells it; polls, as the reaping is not ours."""
    assert pidfd.wait(fd, 5)
    for _ in range(2000):
        status = pidfd.exit_status(fd, pid)
        if status is not None:
            return status
        pidfd.wait(fd, 0)
    return None


def knows_the_reaped() -> bool:
    """True where PIDFD_GET_INFO tells the status of a reaped process."""
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    fd = pidfd.open(child.pid)
    child.communicate(b"\n")
    status = pidfd.exit_status(fd, child.pid)
    os.close(fd)
    return status is not None


needs_info = pytest.mark.skipif("not knows_the_reaped()", reason="needs PIDFD_INFO_EXIT (Linux 6.15)")


def test_open_names_a_process_that_is_not_there() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError, match="pidfd_open"):
        pidfd.open(child.pid)


def test_a_pidfd_is_not_inherited(held: Held) -> None:
    assert not os.get_inheritable(held(pidfd.open(os.getpid())))


def test_a_signal_reaches_the_process_and_says_so(start: Start, held: Held) -> None:
    child = start(SLEEP)
    fd = held(pidfd.open(child.pid))
    assert pidfd.signal(fd, 0)
    assert not pidfd.wait(fd, 0)
    assert pidfd.signal(fd, signal.SIGTERM)
    assert pidfd.wait(fd, 5)
    assert child.wait() == -signal.SIGTERM


def test_a_signal_to_the_dead_says_that_nobody_was_there(start: Start, held: Held) -> None:
    child = start(SLEEP)
    fd = held(pidfd.open(child.pid))
    child.kill()
    child.wait()
    assert not pidfd.signal(fd, signal.SIGTERM)
    assert not pidfd.signal(fd, signal.SIGTERM, group=True)
    pidfd.kill(fd)
    pidfd.kill(fd, group=True)


@pytest.mark.parametrize("old_kernel", [False, True])
def test_a_group_is_killed_with_its_leader(start: Start, held: Held, failing: Callable[..., Any], old_kernel: bool) -> None:
    child = start("say(); os.setsid()\npid = os.fork()\nif pid: print(pid, flush=True)\nsys.stdin.read()")
    assert child.stdout is not None
    leader, member = held(pidfd.open(child.pid)), held(pidfd.open(int(child.stdout.readline())))
    if old_kernel:
        failing(1, errno.EINVAL, "pidfd_send_signal")
    pidfd.kill(leader, group=True)
    assert pidfd.wait(leader, 5)
    assert pidfd.wait(member, 5)


def test_a_group_outlives_its_reaped_leader_and_is_still_reached(start: Start, held: Held) -> None:
    child = start("say(); os.setsid()\npid = os.fork()\nif pid: print(pid, flush=True)\nelse: sys.stdin.read()")
    assert child.stdout is not None
    leader, member = held(pidfd.open(child.pid)), held(pidfd.open(int(child.stdout.readline())))
    child.wait()
    try:
        libc.kernel.pidfd_send_signal(leader, 0, pidfd.PROCESS_GROUP)
    except OSError as error:
        pidfd.kill(member)
        assert error.errno == errno.EINVAL
        pytest.skip("needs PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9)")
    assert pidfd.signal(leader, signal.SIGKILL, group=True)
    assert pidfd.wait(member, 5)


@pytest.mark.parametrize("old_kernel", [False, True])
def test_one_that_leads_no_group_is_killed_alone(start: Start, held: Held, failing: Callable[..., Any],
                                                 old_kernel: bool) -> None:
    child = start(SLEEP)  # in the group of the tests: a group kill by number would end them
    fd = held(pidfd.open(child.pid))
    if old_kernel:
        failing(1, errno.EINVAL, "pidfd_send_signal")
    assert pidfd.signal(fd, signal.SIGKILL, group=True)
    assert pidfd.wait(fd, 5)


def test_a_signal_number_that_does_not_exist_is_an_error(start: Start, held: Held) -> None:
    fd = held(pidfd.open(start("say(); os.setsid(); sys.stdin.read()").pid))
    with pytest.raises(OSError, match=r"pidfd_send_signal|Invalid"):
        pidfd.signal(fd, 4096)


@pytest.mark.parametrize(("end", "status"), [("os._exit(7)", 7 << 8), ("os._exit(0)", 0), ("os.kill(os.getpid(), 9)", 9)])
@pytest.mark.parametrize("without_info", [False, True])
def test_our_zombie_tells_its_status_and_stays_to_be_reaped(start: Start, held: Held, failing: Callable[..., Any], end: str,
                                                           status: int, without_info: bool) -> None:
    child = start(f"say(); sys.stdin.read(1); {end}")
    fd = held(pidfd.open(child.pid))
    assert pidfd.exit_status(fd, child.pid) is None
    assert child.stdin is not None
    child.stdin.close()
    assert pidfd.wait(fd, 5)
    if without_info:
        failing(1, errno.ENOTTY, "ioctl")
    assert pidfd.exit_status(fd, child.pid) == status
    assert os.waitpid(child.pid, 0)[1] == status
    child.returncode = 0


@needs_info
@pytest.mark.parametrize(("end", "status"), [("os._exit(7)", 7 << 8), ("os._exit(0)", 0), ("os.kill(os.getpid(), 9)", 9)])
@pytest.mark.parametrize("ignore", [False, True])
def test_a_grandchild_tells_its_status_whoever_reaps(start: Start, held: Held, end: str, status: int, ignore: bool) -> None:
    code = ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" if ignore else "") + (
        f"say()\npid = os.fork()\nif pid == 0:\n    os.read(0, 1)\n    {end}\nprint(pid, flush=True)\n"
        "try: os.waitpid(pid, 0)\nexcept OSError: pass\nprint('over', flush=True)\nsys.stdin.read()")
    child = start(code)
    assert child.stdout is not None
    assert child.stdin is not None
    grandchild = int(child.stdout.readline())
    fd = held(pidfd.open(grandchild))
    child.stdin.write(b"x")
    child.stdin.flush()
    assert child.stdout.readline() == b"over\n"
    assert told(fd, grandchild) == status


@pytest.mark.parametrize("status", [0, 7])
def test_a_zombie_of_another_is_read_from_proc(start: Start, held: Held, status: int) -> None:
    child = start(f"say()\npid = os.fork()\nif pid == 0:\n    os.read(0, 1)\n    os._exit({status})\n"
                  "print(pid, flush=True)\nsignal.pause()")
    assert child.stdout is not None
    assert child.stdin is not None
    grandchild = int(child.stdout.readline())
    fd = held(pidfd.open(grandchild))
    child.stdin.write(b"x")
    child.stdin.flush()
    assert told(fd, grandchild) == status << 8


def test_a_zero_that_may_be_a_refusal_is_not_told(start: Start, held: Held, failing: Callable[..., Any],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    child = start(SLEEP)
    fd = held(pidfd.open(child.pid))
    assert child.stdin is not None
    child.stdin.close()
    assert pidfd.wait(fd, 5)
    assert pidfd.exit_status(fd, child.pid) == 0
    monkeypatch.setattr(pidfd, "_status_of_our_zombie", lambda fd: None)
    double = failing(1, errno.EACCES, "readlink")
    assert pidfd.exit_status(fd, child.pid) is None
    assert double.made == ["readlink"]


def test_a_leader_that_left_before_its_threads_is_alive_and_then_tells_the_groups_status(start: Start, held: Held) -> None:
    child = start("def rest():\n    os.read(0, 1)\n    os._exit(7)\n"
                  "threading.Thread(target=rest).start(); say()\n"
                  "ctypes.CDLL(None).syscall(ctypes.c_long({'x86_64': 60, 'aarch64': 93}[os.uname().machine]), 0)")
    fd = held(pidfd.open(child.pid))
    for _ in range(2000):
        if pidfd.procfs.stat(child.pid).state == "Z":
            break
        pidfd.wait(fd, 0.001)
    assert pidfd.exit_status(fd, child.pid) is None
    assert child.stdin is not None
    child.stdin.close()
    assert told(fd, child.pid) == 7 << 8
    assert child.wait() == 7
    assert pidfd.exit_status(fd, child.pid) in (7 << 8, None)


def test_a_descriptor_is_stolen_and_not_inherited(start: Start, held: Held) -> None:
    child = start("r, w = os.pipe(); os.write(w, b'treasure'); say(); print(r, flush=True); sys.stdin.read()")
    assert child.stdout is not None
    number = int(child.stdout.readline())
    fd = held(pidfd.open(child.pid))
    try:
        copy = held(pidfd.steal(fd, number))
    except PermissionError:
        pytest.skip("needs ptrace access to a child (Yama ptrace_scope below 3)")
    assert os.read(copy, 100) == b"treasure"
    assert not os.get_inheritable(copy)
    with pytest.raises(OSError, match="pidfd_getfd"):
        pidfd.steal(fd, 999)


def test_the_number_is_that_of_the_process_while_it_has_one(start: Start, held: Held) -> None:
    one = start(SLEEP)
    first = held(pidfd.open(one.pid))
    assert pidfd.process_id(first) == one.pid
    one.kill()
    one.wait()
    assert pidfd.process_id(first) is None
