"""Who sent it: real senders, surplus descriptors, kernels without SO_PASSPIDFD, senders that are gone."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyproc.host import credentials, libc, pidfd

SENDER = """
import array, os, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
sys.stdin.readline()
exec(sys.argv[2])
sys.stdin.readline()
"""


class Peer:
    """A child with the other end of a socketpair, which it uses once `go` was called."""

    def __init__(self, action: str) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(5)
        self.child = subprocess.Popen([sys.executable, "-I", "-S", "-c", SENDER, str(theirs.fileno()), action],
                                      stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
        theirs.close()

    def go(self) -> None:
        """Let it act."""
        assert self.child.stdin is not None
        self.child.stdin.write(b"\n")
        self.child.stdin.flush()

    def end(self) -> None:
        """End it and close everything."""
        self.child.kill()
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()
        self.ours.close()


@pytest.fixture
def peer() -> Iterator[Callable[[str], Peer]]:
    made: list[Peer] = []

    def make(action: str) -> Peer:
        made.append(Peer(action))
        return made[-1]

    yield make
    for one in made:
        one.end()


def close(greeting: credentials.Greeting) -> None:
    if greeting.pidfd >= 0:
        os.close(greeting.pidfd)


@pytest.mark.parametrize("old_kernel", [False, True])
def test_the_sender_is_named_by_the_kernel(peer: Callable[[str], Peer], failing: Callable[..., Any], old_kernel: bool) -> None:
    one = peer("channel.send(b'ready')")
    if old_kernel:
        failing(2, errno.ENOPROTOOPT, "setsockopt")
    credentials.ask(one.ours, on=True)
    one.go()
    greeting = credentials.receive(one.ours, 100)
    own = pidfd.open(one.child.pid)
    try:
        assert greeting.data == b"ready"
        assert (greeting.pid, greeting.uid, greeting.gid) == (one.child.pid, os.getuid(), os.getgid())
        assert not greeting.surplus
        assert pidfd.process_id(greeting.pidfd) == pidfd.process_id(own) == one.child.pid
        assert not os.get_inheritable(greeting.pidfd)
    finally:
        os.close(own)
        close(greeting)


def test_the_end_of_the_channel_has_no_sender(peer: Callable[[str], Peer]) -> None:
    one = peer("channel.close()")
    credentials.ask(one.ours, on=True)
    one.go()
    greeting = credentials.receive(one.ours, 100)
    assert (greeting.data, greeting.pid, greeting.pidfd) == (b"", 0, -1)


def test_what_was_sent_before_we_asked_has_no_sender(peer: Callable[[str], Peer]) -> None:
    one = peer("channel.send(b'early')")
    one.go()
    assert libc.kernel.poll(one.ours.fileno(), 1, 5000)
    credentials.ask(one.ours, on=True)
    greeting = credentials.receive(one.ours, 100)
    close(greeting)
    assert (greeting.data, greeting.pid) == (b"early", 0)


def test_after_asking_no_more_nothing_is_attached(peer: Callable[[str], Peer]) -> None:
    one = peer("channel.send(b'later')")
    credentials.ask(one.ours, on=True)
    credentials.ask(one.ours, on=False)
    one.go()
    assert one.ours.recvmsg(100, 200)[:2] == (b"later", [])


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("old_kernel", [False, True])
def test_descriptors_are_closed_and_reported(peer: Callable[[str], Peer], failing: Callable[..., Any], count: int,
                                             old_kernel: bool) -> None:
    one = peer(f"channel.sendmsg([b'ready'], [(1, 1, array.array('i', [2] * {count}))])")
    if old_kernel:
        failing(2, errno.ENOPROTOOPT, "setsockopt")
    credentials.ask(one.ours, on=True)
    before = len(os.listdir("/proc/self/fd"))
    one.go()
    greeting = credentials.receive(one.ours, 100)
    assert greeting.surplus
    assert greeting.pid == one.child.pid
    close(greeting)
    assert len(os.listdir("/proc/self/fd")) == before


def test_forged_credentials_are_refused_by_the_kernel(peer: Callable[[str], Peer]) -> None:
    import_ = "import struct\n"
    one = peer(import_ + "try:\n    channel.sendmsg([b'forged'], [(1, 2, struct.pack('iII', os.getppid(), 12345, 12345))])\n"
               "except PermissionError:\n    channel.send(b'refused')")
    credentials.ask(one.ours, on=True)
    one.go()
    greeting = credentials.receive(one.ours, 100)
    close(greeting)
    if os.geteuid() == 0 and greeting.data == b"forged":
        pytest.skip("needs a sender without CAP_SYS_ADMIN and CAP_SETUID: root may attach what it likes")
    assert (greeting.data, greeting.pid, greeting.uid) == (b"refused", one.child.pid, os.getuid())


def test_a_sender_that_is_gone_is_never_opened_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word for it is a negative number in the place of the pidfd (Linux 6.5 to 6.15)."""
    opened: list[int] = []

    class Kernel(libc.Kernel):
        def recvmsg(self, *arguments: object) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
            return b"ready", [(socket.SOL_SOCKET, 2, struct.pack("=iII", os.getpid(), os.getuid(), os.getgid())),
                              (socket.SOL_SOCKET, 4, struct.pack("=i", -errno.ESRCH))], 0

        def pidfd_open(self, pid: int) -> int:
            opened.append(pid)
            return super().pidfd_open(pid)

    monkeypatch.setattr(libc, "kernel", Kernel())
    left, right = socket.socketpair()
    with left, right, pytest.raises(ProcessLookupError, match="ended before its message was read"):
        credentials.receive(left, 10)
    assert opened == []


@pytest.mark.parametrize("change", ["uid", "dead"])
def test_without_a_pidfd_a_number_of_someone_else_is_refused(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    uid = os.getuid() + (1 if change == "uid" else 0)
    if change == "dead":
        child.stdin.write(b"\n")
        child.stdin.close()
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    class Kernel(libc.Kernel):
        def recvmsg(self, *arguments: object) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
            return b"ready", [(socket.SOL_SOCKET, 2, struct.pack("=iII", child.pid, uid, 0))], 0

    monkeypatch.setattr(libc, "kernel", Kernel())
    left, right = socket.socketpair()
    with left, right, pytest.raises(ProcessLookupError, match="ended before its message was read"):
        credentials.receive(left, 10)
    child.stdin.close()
    child.wait()


def test_a_refused_option_is_raised_unless_the_kernel_lacks_it(failing: Callable[..., Any]) -> None:
    left, right = socket.socketpair()
    with left, right:
        failing(2, errno.EBADF, "setsockopt")
        with pytest.raises(OSError, match="made to fail"):
            credentials.ask(left, on=True)


def test_the_control_room_is_exact() -> None:
    rights = array.array("i", [0])
    assert socket.CMSG_SPACE(credentials.CREDENTIALS.size) >= socket.CMSG_LEN(12)
    assert rights.itemsize == 4
