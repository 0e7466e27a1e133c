"""Processes by pidfd: signals that cannot hit a stranger, exit statuses of processes that are not our children.

PIDFD_GET_INFO (Linux 6.15) tells the exit status of a reaped process; before that kernel the status of a zombie is read
from /proc. Either works where the host application ignores SIGCHLD or reaps with waitpid(-1).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct

GET_INFO = (3 << 30) | (72 << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, struct pidfd_info of 72 bytes)
INFO_EXIT = 8
EXIT_CODE_OFFSET = 16 + 4 * 11  # after u64 mask, u64 cgroupid, u32 pid tgid ppid ruid rgid euid egid suid sgid fsuid fsgid
PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
NR_PIDFD_SEND_SIGNAL, NR_PIDFD_GETFD = 424, 438

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number: int, *arguments: int | None) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *(a if a is None else ctypes.c_long(a) for a in arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def kill(pidfd: int, *, group: bool = False) -> None:
    """SIGKILL to the process, or to its whole group; a process that is gone is no error."""
    try:
        if group:
            try:
                _syscall(NR_PIDFD_SEND_SIGNAL, pidfd, signal.SIGKILL, None, PROCESS_GROUP)
            except OSError as error:
                if error.errno != 22:
                    raise
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def steal(pidfd: int, fd: int) -> int:
    """A copy of descriptor `fd` of that process, by pidfd_getfd(2). Raises OSError."""
    return _syscall(NR_PIDFD_GETFD, pidfd, fd, 0)


def exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of an ended process, or None while the kernel does not tell it."""
    buffer = bytearray(72)
    struct.pack_into("=Q", buffer, 0, INFO_EXIT | 3)
    try:
        fcntl.ioctl(pidfd, GET_INFO, buffer)
        if struct.unpack_from("=Q", buffer)[0] & INFO_EXIT:
            return int(struct.unpack_from("=i", buffer, EXIT_CODE_OFFSET)[0])
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[49]) if fields[0] == b"Z" else None

