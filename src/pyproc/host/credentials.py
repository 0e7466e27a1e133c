"""Who sent a message, by the kernel's word: SCM_CREDENTIALS and SCM_PIDFD (Linux 6.5) on an inherited socketpair.

Rules: SO_PEERCRED of a socketpair names its maker, the supervisor itself, and says nothing. What the sender attaches is
neither asked nor believed. `ask` comes before the peer can send: the kernel attaches the sender when a message is *sent*,
and one sent earlier arrives with pid 0. The room for control messages fits the two that were asked for; descriptors that the
peer passes take the place of the pidfd, are closed, and are reported as `surplus`, as is whatever did not fit.

Without SO_PASSPIDFD the number of the credentials is opened and the uid compared. A sender that died, and whose number was
taken by a process of the same uid before we looked, is then mistaken; the caller's comparison with what it expects
(parent, namespace, descriptors) is the wall.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from pyproc.host import libc, pidfd, procfs

SO_PASSCRED, SO_PASSPIDFD = 16, 76  # asm-generic: the same on x86_64 and aarch64
SCM_RIGHTS, SCM_CREDENTIALS, SCM_PIDFD = 1, 2, 4
CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid


class Greeting(NamedTuple):
    """`data` and the pid, uid, gid and a pidfd of the process that sent it; `surplus`: it tried to pass descriptors.

    `pid` is 0 at end-of-file and for a sender that our pid namespace does not show. The pidfd is the caller's to close.
    """

    data: bytes
    pid: int
    uid: int
    pidfd: int
    surplus: bool
    gid: int = -1


def ask(channel: socket.socket, *, on: bool) -> None:
    """Have the kernel attach the sender's identity to what arrives on `channel`, or stop it again. Raises OSError."""
    libc.kernel.setsockopt(channel, SO_PASSCRED, int(on))
    try:
        libc.kernel.setsockopt(channel, SO_PASSPIDFD, int(on))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise


def receive(channel: socket.socket, count: int) -> Greeting:
    """At most `count` bytes with their sender. Raises OSError; ProcessLookupError for a sender that is gone."""
    room = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(4)
    text, ancillary, flags = libc.kernel.recvmsg(channel, count, room, socket.MSG_CMSG_CLOEXEC)
    pid = uid = 0
    gid = held = -1
    refused = 0
    surplus = bool(flags & socket.MSG_CTRUNC)
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            surplus = True
        elif kind == SCM_CREDENTIALS:
            pid, uid, gid = CREDENTIALS.unpack(payload[: CREDENTIALS.size])
        elif kind == SCM_PIDFD:
            held = struct.unpack("=i", payload[:4])[0]
            refused = -held if held < 0 else 0
        elif kind == SCM_RIGHTS:
            surplus = True
            for (fd,) in struct.iter_unpack("=i", payload[: len(payload) // 4 * 4]):
                libc.kernel.close(fd)
        else:
            surplus = True
    if refused:  # the kernel's own word that there is nobody to hold: opening the number would hold a stranger
        raise ProcessLookupError(refused, f"process {pid} ended before its message was read")
    if pid and held < 0:
        held = _hold(pid, uid)
    return Greeting(text, pid, uid, held, surplus, gid)


def _hold(pid: int, uid: int) -> int:
    held = pidfd.open(pid)
    try:
        if procfs.status(pid).uids[0] != uid or pidfd.wait(held, 0):
            raise procfs.GoneError(errno.ESRCH, f"process {pid} of uid {uid} ended before its message was read")
    except BaseException:
        libc.kernel.close(held)
        raise
    return held
