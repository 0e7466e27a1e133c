"""The door of `host`: every system call that these modules make goes through `libc.kernel`, one method for each.

Rules: a method does one call and nothing else, raises OSError, and decides nothing. The other modules look `kernel` up at
each use, so a test replaces it and makes the n-th call fail (SQLite's `aSyscall`). The calls that Python may lack are
issued by number: a CPython built against old kernel headers has no `os.pidfd_open`, whatever kernel it runs on. Their
numbers are above 423 and therefore the same on every architecture. Rejected: libseccomp, psutil, a C extension; each is one
more thing to trust for what a handful of lines does.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import select
import socket
from collections.abc import Callable

NUMBERS = {"pidfd_send_signal": 424, "pidfd_open": 434, "pidfd_getfd": 438,  # Linux 5.1, 5.3, 5.6
           "landlock_create_ruleset": 444}  # Linux 5.13

MAP_FAILED = ctypes.c_void_p(-1).value


@functools.cache
def _syscall() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


@functools.cache
def _mmap() -> Callable[..., int | None]:
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    return call


@functools.cache
def _munmap() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).munmap
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return call


def by_number(name: str, *arguments: int | bytes | None) -> int:
    """Issue system call `name` of NUMBERS; bytes are passed as a pointer, None is a null one. Raises OSError naming the call."""
    result = int(_syscall()(ctypes.c_long(NUMBERS[name]), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


class Kernel:
    """The system calls of `host`; the arguments are those of the call."""

    open = staticmethod(os.open)
    read = staticmethod(os.read)
    pread = staticmethod(os.pread)
    write = staticmethod(os.write)
    close = staticmethod(os.close)
    fstat = staticmethod(os.fstat)
    listdir = staticmethod(os.listdir)
    readlink = staticmethod(os.readlink)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    fcntl = staticmethod(fcntl.fcntl)
    waitpid = staticmethod(os.waitpid)
    kill = staticmethod(os.kill)
    killpg = staticmethod(os.killpg)
    getpgid = staticmethod(os.getpgid)
    posix_spawn = staticmethod(os.posix_spawn)
    ftruncate = staticmethod(os.ftruncate)

    def ioctl(self, fd: int, request: int, buffer: bytearray) -> None:
        """ioctl(2) on a structure that the kernel reads and fills in place."""
        fcntl.ioctl(fd, request, buffer)

    def waitid(self, kind: int, number: int, options: int) -> os.waitid_result | None:
        """waitid(2); None where WNOHANG finds nothing."""
        return os.waitid(kind, number, options)

    def poll(self, fd: int, events: int, milliseconds: int) -> int:
        """poll(2) of one descriptor: the events that it has, 0 for none within the time."""
        watch = select.poll()
        watch.register(fd, events)
        ready = watch.poll(milliseconds)
        return ready[0][1] if ready else 0

    def memfd_create(self, name: str, flags: int) -> int:
        """memfd_create(2)."""
        return os.memfd_create(name, flags)

    def mmap(self, size: int, protection: int, flags: int, fd: int) -> int:
        """mmap(2) of a file from its begin, at an address of the kernel's choice."""
        address: int | None = _mmap()(None, size, protection, flags, fd, 0)
        if address is None or address == MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, f"mmap of {size} bytes: {os.strerror(code)}")
        return address

    def munmap(self, address: int, size: int) -> None:
        """munmap(2)."""
        _munmap()(address, size)

    def pidfd_open(self, pid: int) -> int:
        """pidfd_open(2); the descriptor is close-on-exec."""
        return by_number("pidfd_open", pid, 0)

    def pidfd_send_signal(self, pidfd: int, number: int, flags: int) -> None:
        """pidfd_send_signal(2) without a siginfo."""
        by_number("pidfd_send_signal", pidfd, number, None, flags)

    def pidfd_getfd(self, pidfd: int, fd: int) -> int:
        """pidfd_getfd(2); the copy is close-on-exec."""
        return by_number("pidfd_getfd", pidfd, fd, 0)

    def landlock_create_ruleset(self, attributes: bytes) -> int:
        """landlock_create_ruleset(2); the descriptor is close-on-exec."""
        return by_number("landlock_create_ruleset", attributes, len(attributes), 0)

    def setsockopt(self, channel: socket.socket, option: int, value: int) -> None:
        """setsockopt(2) at SOL_SOCKET."""
        channel.setsockopt(socket.SOL_SOCKET, option, value)

    def recvmsg(self, channel: socket.socket, count: int, control: int,
                flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        """recvmsg(2): bytes, control messages, flags."""
        got, ancillary, came, _ = channel.recvmsg(count, control, flags)
        return got, ancillary, came


kernel = Kernel()
