"""The supervisor's end of a seccomp user notification: which call waits, and the answer to it (seccomp_unotify(2)).

```
target thread            kernel                       supervisor
  call ───────────────▶  queued, POLLIN  ───────────▶  receive() → Notification
  (sleeps)                                             … what it read of the process by number: valid()? …
  goes on / fails  ◀───  by id           ◀───────────  answer(errno 0: let it go on)
```

Rules: `receive` never blocks, as one thread watches many things: the ioctl is made only where poll(2) shows a waiting call.
That matters before Linux 6.11, where it sleeps for ever on a filter that has no task left (poll says POLLHUP only). A target
that vanished is no error; every other refusal is raised. Letting a call go on is a decision about register arguments only,
as memory that they point to can change afterwards.
"""

from __future__ import annotations

import errno
import select
import struct
from typing import NamedTuple

from pyproc.host import libc

RECV, SEND = 0xC0502100, 0xC0182101
ID_VALID = 0x40082102  # the _IOW form, Linux 5.9; before it the number had the direction the wrong way round
ID_VALID_OLD = 0x80082102
NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # 80 bytes: id, pid, flags, nr, arch, instruction pointer, six arguments
RESPONSE = struct.Struct("=QqiI")  # 24 bytes: id, value, error, flags
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5: the kernel goes on with the call


class Notification(NamedTuple):
    """`id` for the answer; `pid` of the thread, in our pid namespace (0: not visible); system call `number`, its six
    `arguments`, and the AUDIT_ARCH_… in whose table the number stands."""

    id: int
    pid: int
    number: int
    arguments: tuple[int, ...]
    arch: int = 0


def receive(listener: int) -> Notification | None:
    """The next waiting call, or None where none waits or the caller has vanished. Raises OSError for a bad listener."""
    if not libc.kernel.poll(listener, select.POLLIN, 0) & select.POLLIN:
        return None
    buffer = bytearray(NOTIFICATION.size)
    try:
        libc.kernel.ioctl(listener, RECV, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    id_, pid, _flags, number, arch, _pointer, *arguments = NOTIFICATION.unpack(buffer)
    return Notification(id_, pid, number, tuple(arguments), arch)


def valid(listener: int, notification: Notification) -> bool:
    """False once the caller was killed: then what was read of its number since may be another process's."""
    buffer = bytearray(struct.pack("=Q", notification.id))
    for request in (ID_VALID, ID_VALID_OLD):
        try:
            libc.kernel.ioctl(listener, request, buffer)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return True
    return False


def answer(listener: int, notification: Notification, error_number: int) -> bool:
    """Let the call go on (0) or fail with `error_number`. False if the caller has vanished. Raises OSError."""
    flags = CONTINUE if error_number == 0 else 0
    try:
        libc.kernel.ioctl(listener, SEND, bytearray(RESPONSE.pack(notification.id, 0, -error_number, flags)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def ended(listener: int) -> bool:
    """True when no task has the filter any more: the listener is then always ready to poll and has nothing to tell."""
    return bool(libc.kernel.poll(listener, select.POLLIN, 0) & select.POLLHUP)
