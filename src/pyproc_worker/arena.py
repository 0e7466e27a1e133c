"""A worker's ends of its arenas, and room in one of them for a result.

Both are mapped when they are first needed: a worker that only meets small values maps nothing. The answers are mapped once, for the
life of the process. The requests are mapped privately, so that what a function keeps of them can become a copy where it lies; they
are mapped again after that. ctypes and not `mmap.mmap`, which keeps a descriptor for each mapping up to Python 3.12.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from math import prod
from typing import TYPE_CHECKING, Any

from pyproc_wire.arena import answers_size, requests_size
from pyproc_wire.limits import ARENA_VALUE_BYTES
from pyproc_wire.places import ARENA_ANSWERS, ARENA_REQUESTS

if TYPE_CHECKING:
    from pyproc_wire.arena import Sender

MAP_NORESERVE = 0x4000  # asm-generic/mman.h; the same on x86_64 and aarch64
MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Mapping:
    """As `pyproc_wire.arena.Mapping`. Raises OSError."""

    __slots__ = ("_address", "_kind", "_size")

    def __init__(self, fd: int, size: int, flags: int) -> None:
        self._size = size
        self._address = 0
        address = _mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
        if address is None or address == MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, f"mmap of {size} bytes: {os.strerror(code)}")
        self._address = address
        self._kind = ctypes.c_char * size

    def region(self) -> Any:
        """A new object over all of the memory, which holds the mapping."""
        region = self._kind.from_address(self._address)
        region.mapping = self  # type: ignore[attr-defined]
        return region

    def __del__(self) -> None:
        if self._address:
            _munmap(self._address, self._size)


def map_requests(limit: int) -> Mapping:
    """The memory that the supervisor writes, of requests of at most `limit` bytes. Raises OSError."""
    return Mapping(ARENA_REQUESTS, requests_size(limit), mmap.MAP_PRIVATE | MAP_NORESERVE)


def map_answers(limit: int) -> Mapping:
    """The memory that the supervisor reads. Raises OSError."""
    return Mapping(ARENA_ANSWERS, answers_size(limit), mmap.MAP_SHARED)


present: Sender | None = None
"""Where results are built. Set by who serves."""


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> Any:
    """As `numpy.empty`, for the result of the present call: what is built in it is sent without a copy.

    The memory is used again for the next result, so keep a copy of what is needed later. Where there is no room in the arena,
    or no arena, or the array is small, it is an ordinary one.
    """
    import numpy

    kind = numpy.dtype(dtype)
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    size = prod(lengths) * kind.itemsize
    room = None
    if size >= ARENA_VALUE_BYTES and min(lengths, default=0) >= 0 and not kind.hasobject and present is not None:
        room = present.reserve(size)
    if room is None:
        return numpy.empty(shape, dtype)
    region, offset = room
    return numpy.frombuffer(region, "u1", size, offset).view(kind).reshape(lengths)
