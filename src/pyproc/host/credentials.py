"""Who sent a message, by the kernel's word: SCM_CREDENTIALS and SCM_PIDFD (Linux 6.5) on an inherited socketpair.

SO_PEERCRED of a socketpair names its maker, the supervisor itself, and says nothing. What the sender attaches is
neither asked nor believed; descriptors that it tries to pass are closed and reported.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

SO_PASSPIDFD, SCM_PIDFD, SCM_CREDENTIALS = 76, 4, 2


class Greeting(NamedTuple):
    """`data` and the pid, uid and a pidfd of the process that sent it; `surplus`: it tried to pass descriptors."""

    data: bytes
    pid: int
    uid: int
    pidfd: int
    surplus: bool


def ask(channel: socket.socket, *, on: bool) -> None:
    """Have the kernel attach the sender's identity to what arrives on `channel`, or stop it again."""
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, int(on))
    try:
        channel.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, int(on))
    except OSError:
        return


def receive(channel: socket.socket, count: int) -> Greeting:
    """One message with its sender; b"" data and pid 0 at end-of-file. Raises OSError."""
    data, ancillary, _, _ = channel.recvmsg(count, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4),
                                            socket.MSG_CMSG_CLOEXEC)
    pid = uid = 0
    pidfd, surplus = -1, False
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == SCM_CREDENTIALS:
            pid, uid, _gid = struct.unpack("=iII", payload[:12])
        elif kind == SCM_PIDFD:
            pidfd = struct.unpack("=i", payload[:4])[0]
        elif kind == socket.SCM_RIGHTS:
            surplus = True
            for (fd,) in struct.iter_unpack("=i", payload[: len(payload) // 4 * 4]):
                os.close(fd)
    if pid and pidfd < 0:
        pidfd = os.pidfd_open(pid)
    return Greeting(data, pid, uid, pidfd, surplus)
