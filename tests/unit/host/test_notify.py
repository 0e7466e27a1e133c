"""A real filter in a real child: its calls arrive, go on, fail, and vanish with it."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from pyproc.host import notify, pidfd

Start = Callable[..., "subprocess.Popen[bytes]"]
NUMBERS = {"x86_64": (110, 317, 0xC000003E), "aarch64": (173, 277, 0xC00000B7)}  # getppid, seccomp, AUDIT_ARCH
FILTER = """
import struct
libc = ctypes.CDLL(None, use_errno=True)
GETPPID, SECCOMP = {getppid}, {seccomp}
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *row) for row in [
    (0x20, 0, 0, 0), (0x15, 0, 1, GETPPID), (6, 0, 0, 0x7fc00000), (6, 0, 0, 0x7fff0000)]))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.addressof(code)))
libc.prctl(38, 1, 0, 0, 0)
say()
listener = libc.syscall(ctypes.c_long(SECCOMP), ctypes.c_long(1), ctypes.c_long(8), program)
print(listener if listener >= 0 else -ctypes.get_errno(), flush=True)
while sys.stdin.read(1):
    result = libc.syscall(ctypes.c_long(GETPPID), *(ctypes.c_long(n) for n in (11, 22, 33, 44, 55, 66)))
    print(result, ctypes.get_errno() if result < 0 else 0, flush=True)
"""


class Target(NamedTuple):
    """A child whose getppid waits for us, and our copy of its listener."""

    child: subprocess.Popen[bytes]
    listener: int

    def go(self) -> None:
        """Have it make one call."""
        assert self.child.stdin is not None
        self.child.stdin.write(b"x")
        self.child.stdin.flush()

    def result(self) -> tuple[int, int]:
        """What the call returned, and its errno."""
        assert self.child.stdout is not None
        value, code = self.child.stdout.readline().split()
        return int(value), int(code)


def arrives(listener: int) -> notify.Notification:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        asked = notify.receive(listener)
        if asked is not None:
            return asked
        time.sleep(0.001)
    raise AssertionError("no call arrived within 5 s")


@pytest.fixture
def target(start: Start) -> Iterator[Target]:
    machine = platform.machine()
    if machine not in NUMBERS:
        pytest.skip(f"needs the numbers of {machine}")
    getppid, seccomp, _ = NUMBERS[machine]
    child = start(FILTER.format(getppid=getppid, seccomp=seccomp), bufsize=0)
    assert child.stdout is not None
    number = int(child.stdout.readline())
    if number < 0:
        pytest.skip(f"needs seccomp user notification: errno {-number}")
    held = pidfd.open(child.pid)
    try:
        listener = pidfd.steal(held, number)
    except PermissionError:
        pytest.skip("needs ptrace access to a child (Yama ptrace_scope below 3)")
    finally:
        os.close(held)
    yield Target(child, listener)
    os.close(listener)


def test_a_call_arrives_with_its_arguments_and_goes_on(target: Target) -> None:
    assert notify.receive(target.listener) is None
    target.go()
    asked = arrives(target.listener)
    getppid, _, arch = NUMBERS[platform.machine()]
    assert (asked.pid, asked.number, asked.arguments, asked.arch) == (target.child.pid, getppid, (11, 22, 33, 44, 55, 66), arch)
    assert notify.valid(target.listener, asked)
    assert notify.answer(target.listener, asked, 0)
    assert target.result() == (os.getpid(), 0)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EAGAIN, errno.ENOSYS])
def test_a_call_fails_with_the_number_that_was_answered(target: Target, code: int) -> None:
    for _ in range(2):
        target.go()
        assert notify.answer(target.listener, arrives(target.listener), code)
        assert target.result() == (-1, code)


def test_a_second_answer_meets_nobody(target: Target) -> None:
    target.go()
    asked = arrives(target.listener)
    assert notify.answer(target.listener, asked, 0)
    target.result()
    assert not notify.answer(target.listener, asked, errno.EPERM)
    assert not notify.valid(target.listener, asked)


def test_a_target_that_was_killed_is_no_error(target: Target) -> None:
    target.go()
    asked = arrives(target.listener)
    target.child.kill()
    target.child.wait()
    assert not notify.valid(target.listener, asked)
    assert not notify.answer(target.listener, asked, 0)


def test_a_filter_without_tasks_neither_blocks_nor_tells(target: Target) -> None:
    assert not notify.ended(target.listener)
    target.child.kill()
    target.child.wait()
    for _ in range(2000):
        if notify.ended(target.listener):
            break
        time.sleep(0.001)
    assert notify.ended(target.listener)
    assert notify.receive(target.listener) is None


def test_a_call_that_vanished_before_it_was_read_is_none(target: Target, failing: Callable[..., Any]) -> None:
    target.go()
    arrived = arrives(target.listener)
    assert notify.answer(target.listener, arrived, 0)
    target.result()
    target.go()
    while not notify.libc.kernel.poll(target.listener, 1, 100):
        pass
    failing(1, errno.ENOENT, "ioctl")
    assert notify.receive(target.listener) is None


def test_an_older_kernels_number_of_valid_is_tried(target: Target, failing: Callable[..., Any]) -> None:
    target.go()
    asked = arrives(target.listener)
    failing(1, errno.EINVAL, "ioctl")
    assert notify.valid(target.listener, asked)


def test_a_refusal_that_means_a_fault_of_ours_is_raised(target: Target, failing: Callable[..., Any]) -> None:
    target.go()
    asked = arrives(target.listener)
    for operation in (lambda: notify.answer(target.listener, asked, 0), lambda: notify.valid(target.listener, asked)):
        failing(1, errno.EBADF, "ioctl")
        with pytest.raises(OSError, match="made to fail"):
            operation()


def test_the_structures_have_the_kernels_sizes() -> None:
    assert (notify.NOTIFICATION.size, notify.RESPONSE.size) == (80, 24)
    assert (notify.RECV >> 16 & 0x3FFF, notify.SEND >> 16 & 0x3FFF, notify.ID_VALID >> 16 & 0x3FFF) == (80, 24, 8)
    assert struct.calcsize("=Q") == 8
