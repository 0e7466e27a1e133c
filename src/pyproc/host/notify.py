"""The supervisor's end of a seccomp user notification: which call waits, and the answer to it (seccomp_unotify(2))."""

from __future__ import annotations

import fcntl
import struct
from typing import NamedTuple

RECV, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel goes on with the call; safe for register arguments only


class Notification(NamedTuple):
    """`id` for the answer; `pid` of the thread, in our pid namespace; system call `number` and its six `arguments`."""

    id: int
    pid: int
    number: int
    arguments: tuple[int, ...]


def receive(listener: int) -> Notification | None:
    """The next waiting call, or None where the caller has vanished meanwhile."""
    buffer = bytearray(80)
    try:
        fcntl.ioctl(listener, RECV, buffer)
    except OSError:
        return None
    id_, pid, _flags, number, _arch, _ip, *arguments = struct.unpack("=QIIiIQ6Q", buffer)
    return Notification(id_, pid, number, tuple(arguments))


def answer(listener: int, notification: Notification, errno: int) -> None:
    """Let the call go on (errno 0) or fail with `errno`. A caller that has vanished is no error."""
    flags = CONTINUE if errno == 0 else 0
    try:
        fcntl.ioctl(listener, SEND, bytearray(struct.pack("=QqiI", notification.id, 0, -errno, flags)))
    except OSError:
        return
