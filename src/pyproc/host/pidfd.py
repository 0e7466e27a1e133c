"""Processes by pidfd: signals that cannot hit a stranger, exit statuses of processes that are not our children.

Rules: a process number is trusted only while a pidfd shows that it is still taken. What a kernel lacks has a fallback whose
weakness is written beside it. Nothing here waits for a child in the host's place: it may ignore SIGCHLD or reap by itself.

Where the exit status comes from:

| the process is | evidence | since |
|---|---|---|
| alive (also: a leader that is a zombie while its threads run on) | none | |
| reaped, by whomever | ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT | Linux 6.15 |
| a zombie and our child | waitid(P_PIDFD, WNOWAIT): looks and leaves it to be reaped | Linux 5.4 |
| a zombie of somebody else | last field of /proc/PID/stat, where ptrace access shows it | any |

All four tell the status of the whole process, measured with a leader that left before its last thread. Before 6.15 nothing
tells the status of a process that was reaped by another one (`tells_of_the_reaped`): its parent has to keep it until it was read.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import select
import struct
from signal import SIGKILL

from pyproc.host import libc, procfs

GET_INFO = (3 << 30) | (72 << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, struct pidfd_info of 72 bytes)
INFO_BYTES = 72
INFO_EXIT = 8
EXIT_CODE_OFFSET = 16 + 4 * 11  # after u64 mask, u64 cgroupid, u32 pid tgid ppid ruid rgid euid egid suid sgid fsuid fsgid
PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
REAPED_TOLD = (6, 15)
P_PIDFD = 3  # as in os.P_PIDFD, which not every build has


def open(pid: int) -> int:
    """A pidfd of process `pid`, close-on-exec. Raises ProcessLookupError when there is none."""
    return libc.kernel.pidfd_open(pid)


def signal(pidfd: int, number: int, *, group: bool = False) -> bool:
    """Send signal `number` (0 only asks); True if it reached somebody. Raises PermissionError.

    `group`: to the process group that the process leads, at once and even after the leader was reaped (Linux 6.9). Before
    6.9 the group is signalled by number while the leader is seen to hold it: members that outlive a reaped leader are not
    reached then, and a leader reaped in the microseconds between could hand the number on.
    A process that leads no group, or left the one it led, is signalled alone.
    """
    if not group:
        return _send(pidfd, number, 0)
    try:
        reached = _send(pidfd, number, PROCESS_GROUP)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        reached = _send_to_group_of_living_leader(pidfd, number)
    if not reached or number == SIGKILL:  # a second SIGKILL costs nothing and meets one that moved to another group
        reached = _send(pidfd, number, 0) or reached
    return reached


def kill(pidfd: int, *, group: bool = False) -> None:
    """SIGKILL to the process, or to its whole group; a process that is gone is no error."""
    signal(pidfd, SIGKILL, group=group)


def steal(pidfd: int, fd: int) -> int:
    """A copy of descriptor `fd` of that process, close-on-exec, by pidfd_getfd(2) (Linux 5.6). Raises OSError."""
    return libc.kernel.pidfd_getfd(pidfd, fd)


def wait(pidfd: int, seconds: float) -> bool:
    """True once the process has ended, False when `seconds` are over."""
    return bool(libc.kernel.poll(pidfd, select.POLLIN, max(0, int(seconds * 1000))))


def exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of an ended process, or None while the kernel does not tell it."""
    if not wait(pidfd, 0):
        return None
    buffer = bytearray(INFO_BYTES)
    struct.pack_into("=Q", buffer, 0, INFO_EXIT)
    try:
        libc.kernel.ioctl(pidfd, GET_INFO, buffer)
        if struct.unpack_from("=Q", buffer)[0] & INFO_EXIT:
            return int(struct.unpack_from("=i", buffer, EXIT_CODE_OFFSET)[0])
    except OSError:
        pass  # a kernel before 6.13 has no such ioctl, one before 6.15 knows nobody who was reaped
    status = _status_of_our_zombie(pidfd)
    return status if status is not None else _status_of_a_zombie(pidfd, pid)


def tells_of_the_reaped() -> bool:
    """Whether `exit_status` needs no zombie: by the kernel's version, as there is nobody to try it on before a pool starts."""
    major, minor = (int(number) for number in re.findall(r"\d+", platform.release())[:2])
    return (major, minor) >= REAPED_TOLD


def process_id(pidfd: int) -> int | None:
    """The pid in our namespace, None once it was reaped or where it is not visible."""
    for line in procfs.read(f"/proc/self/fdinfo/{pidfd}").splitlines():
        if line.startswith(b"Pid:"):
            number = int(line[4:])
            return number if number > 0 else None
    return None


def _send(pidfd: int, number: int, flags: int) -> bool:
    try:
        libc.kernel.pidfd_send_signal(pidfd, number, flags)
    except ProcessLookupError:
        return False
    return True


def _send_to_group_of_living_leader(pidfd: int, number: int) -> bool:
    leader = process_id(pidfd)
    try:
        if leader is None or libc.kernel.getpgid(leader) != leader or not _send(pidfd, 0, 0):
            return False
        libc.kernel.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True


def _status_of_our_zombie(pidfd: int) -> int | None:
    try:
        found = libc.kernel.waitid(P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # ECHILD: not ours; EINVAL: before Linux 5.4
        return None
    return None if found is None else wait_status(found.si_code, found.si_status)


def wait_status(code: int, value: int) -> int:
    """The status of waitpid(2) for `si_code` and `si_status` of waitid(2)."""
    if code == os.CLD_EXITED:
        return value << 8
    return value | (0x80 if code == os.CLD_DUMPED else 0)


def _status_of_a_zombie(pidfd: int, pid: int) -> int | None:
    try:
        found = procfs.stat(pid)
        if found.state != "Z" or not signal(pidfd, 0):
            return None  # reaped meanwhile: what was read may be another process's
        if found.exit_code == 0:
            libc.kernel.readlink(f"/proc/{pid}/ns/user")  # needs the access without which the kernel shows 0 for every code
    except OSError:
        return None
    return found.exit_code
