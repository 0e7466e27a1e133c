"""Sealed memory that is shared with a worker: made and sized here, so that nobody can take its end away under a reader.

The size is sealed, and the seals are: memfd_create(2), fcntl(2), F_ADD_SEALS. A memory that only we write is sealed for future
writing too (Linux 5.1): mappings that stand before it go on writing, and whoever gets the descriptor can map it for reading only.
Sealing for writing at once would need a mapping less.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
from typing import Any

from pyproc.host import libc

F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; CPython has no name for it
MFD_NOEXEC_SEAL = 0x08  # linux/memfd.h, Linux 6.3: not executable, and never will be; an older kernel answers EINVAL
MAP_NORESERVE = 0x4000  # asm-generic/mman.h; the same on x86_64 and aarch64
SIZED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def make(name: str, size: int) -> int:
    """A descriptor of `size` bytes, without seals yet. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = libc.kernel.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    except OSError:
        fd = libc.kernel.memfd_create(name, flags)
    try:
        libc.kernel.ftruncate(fd, size)
    except OSError:
        libc.kernel.close(fd)
        raise
    return fd


def seal(fd: int, *, only_we_write: bool) -> None:
    """Fix the size, and who may write. Raises OSError."""
    libc.kernel.fcntl(fd, fcntl.F_ADD_SEALS, SIZED | (F_SEAL_FUTURE_WRITE if only_we_write else 0))


@functools.cache
def _bytes(size: int) -> Any:
    """The type of so many bytes: making one costs as much as the mapping."""
    return ctypes.c_char * size


class Mapping:
    """All of a memory, as long as anybody holds this object or a region of it. `shared`: what is written is written to the memory;
    else each page that is written becomes a private copy. Raises OSError."""

    __slots__ = ("_address", "_kind", "_size")

    def __init__(self, fd: int, size: int, *, shared: bool) -> None:
        self._size = size
        self._address = 0
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE | MAP_NORESERVE
        self._address = libc.kernel.mmap(size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd)
        self._kind = _bytes(size)

    def region(self) -> Any:
        """A new object over all of the memory, which holds the mapping and can be referred to weakly."""
        region = self._kind.from_address(self._address)
        region.mapping = self
        return region

    def __del__(self) -> None:
        if self._address:
            libc.kernel.munmap(self._address, self._size)
