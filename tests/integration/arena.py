"""The script that the tests of large values call."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
from typing import Any

import numpy

from pyproc_worker import empty, expose, run_worker

KEPT: list[Any] = []
LIBC = ctypes.CDLL(None, use_errno=True)


@expose
def echo(x):  # type: ignore[no-untyped-def]
    return x


@expose
def writeable(x) -> bool:  # type: ignore[no-untyped-def]
    return bool(x.flags.writeable)


@expose
def keep(x) -> int:  # type: ignore[no-untyped-def]
    KEPT.append(x[3:])
    return len(KEPT)


@expose
def kept(index: int) -> Any:
    return KEPT[index]


@expose
def fill(size: int, value: int) -> Any:
    built = empty(size, "u1")
    built[:] = value
    return built


@expose
def fill_and_go_on(size: int, value: int) -> Any:
    """The result, and a thread that goes on writing to it."""
    import threading

    built = empty(size, "u1")
    built[:] = value

    def write() -> None:
        while True:
            built[:] = value + 1

    threading.Thread(target=write, daemon=True).start()
    return built


@expose
def look(x) -> list[Any]:  # type: ignore[no-untyped-def]
    return [int(x[0]), int(x[-1]), os.getpid()]


@expose
def die(x) -> None:  # type: ignore[no-untyped-def]
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)  # strict refuses kill


@expose
def parts(n: int):  # type: ignore[no-untyped-def]
    for number in range(n):
        yield numpy.full(1 << 19, number, "u1")


@expose
def write_to_the_requests() -> list[str]:
    """What is refused of writing to what callers send: by a mapping, by write(2), by ftruncate(2), and to the answers' end."""
    found = []
    for name, act in {
        "map": lambda: mmap.mmap(6, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        "write": lambda: os.write(6, b"x"),
        "shrink": lambda: os.ftruncate(6, 0),
        "shrink answers": lambda: os.ftruncate(7, 0),
        "grow answers": lambda: (os.lseek(7, 0, os.SEEK_END), os.write(7, b"x")),
    }.items():
        try:
            act()  # type: ignore[no-untyped-call]
        except OSError:
            found.append(name)
    return found


@expose
def run_what_was_written() -> list[str]:
    """What is refused on the way from bytes in the arena of answers to code."""
    os.write(7, b"\xc3" * 4096)
    found = []
    for name, act in {
        "map": lambda: mapped(7), "map shared": lambda: mapped(7, mmap.MAP_SHARED), "dup": lambda: mapped(os.dup(7)),
        "dup2": lambda: mapped(os.dup2(7, 99)), "dup3": lambda: mapped(os.dup2(7, 99, inheritable=False)),
        "fcntl": lambda: mapped(fcntl.fcntl(7, fcntl.F_DUPFD, 20)), "mprotect": lambda: protect(mapped(7, mmap.MAP_SHARED, 3)),
    }.items():
        try:
            act()
        except OSError:
            found.append(name)
    return found


def mapped(fd: int, flags: int = mmap.MAP_PRIVATE, protection: int = 5) -> int:
    LIBC.mmap.restype = ctypes.c_void_p
    address = LIBC.mmap(None, ctypes.c_size_t(4096), protection, flags, fd, ctypes.c_long(0))
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return address  # type: ignore[no-any-return]


def protect(address: int) -> None:
    if LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 5):
        raise OSError(ctypes.get_errno(), "mprotect")


@expose
def hoard(size: int) -> int:
    """Bytes in the arena of answers and not in memory of its own."""
    built = empty(size, "u1")
    built[::4096] = 1
    return len(built)


if __name__ == "__main__":
    run_worker()
