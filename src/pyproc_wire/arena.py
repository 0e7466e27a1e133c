"""Large values beside the frames: the bytes lie in memory that both ends map, the frame holds a reference to them.

    Sender ── copies of this call ──▶ | cursor ...  room  ... floor | ◀── what was built in place ── Sender.reserve
    Receiver ◀── (offset, size) of the frame, checked against the end of the memory and the limit ──

An arena is one-way. What arrives in it is data and never structure: offset, size, dtype and shape stand in the frame, are read
once and are checked before a view is made, so that a peer that goes on writing changes bytes and nothing else. Who needs bytes
that stay takes a copy (`views` off). One call at a time: what is sent beside another open call goes by the frame.

A view is lent for a while, until `settle`. What is still held by then becomes a copy where it lies: the receiver maps
privately, so that writing a page of its mapping takes the page out of the shared memory, and the next call gets a new mapping.
Told by reference counts, not by what anybody promises.

Neither end knows descriptors here: each is handed a function that maps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from pyproc_wire.limits import ARENA_VALUE_BYTES

ALIGNMENT: Final = 64
"""Bytes: a value begins where a cache line does, which suits every dtype."""

PAGE_BYTES: Final = 4096
"""Bytes: the smallest page of the architectures; writing one byte in so many takes out every page."""

def requests_size(limit: int) -> int:
    """Bytes of an arena for requests of at most `limit`: one half for copies, so that they always find room, and one for what is built
    in place and may stay for long. What nobody writes takes no memory."""
    return 2 * answers_size(limit)


def answers_size(limit: int) -> int:
    """Bytes of an arena for answers of at most `limit`: whole pages."""
    return -(-limit // PAGE_BYTES) * PAGE_BYTES


class Mapping(Protocol):
    """One mapping of the arena, which lives as long as anybody holds it or one of its regions."""

    def region(self) -> Any:
        """A new object of the buffer protocol over all of it; weakly referable, and held by whoever holds a view of it."""


Mapper = Callable[[], Mapping | None]
"""Maps the arena; None where there is none. Raises OSError where the system refuses, MemoryError."""


class Sender:
    """The end that writes: a message's copies from the bottom up, and from the top down what is reserved for values that are built
    in place and sent without a copy. `placed`: bytes that the present message refers to, which count towards its limit;
    `touched`: anything was copied or reserved since `end`. Nothing is reserved below `lowest`."""

    __slots__ = ("_address", "_floor", "_lowest", "_map", "_mapping", "_memory", "_top", "placed", "size", "touched")

    def __init__(self, map: Mapper, lowest: int = 0) -> None:
        self._map: Mapper | None = map
        self._lowest = lowest
        self._mapping: Mapping | None = None
        self._memory: Any = None
        self._address = 0
        self._top = 0  # of the copies
        self._floor = 0  # of what is reserved
        self.size = 0
        self.placed = 0
        self.touched = False

    def _open(self) -> Any:
        """The memory, mapped when it is first asked for; None where it cannot be, and everything stands in the messages then."""
        if self._map is not None:
            map, self._map = self._map, None
            try:
                mapping = self._mapping = map()
            except (OSError, MemoryError):
                return None
            if mapping is not None:
                self._memory = mapping.region()
                self.size = self._floor = len(self._memory)
        return self._memory

    def end(self) -> None:
        """The message is made, or will not be: its copies may be overwritten when the peer has answered."""
        self._top = self.placed = 0
        self.touched = False

    def reserve(self, size: int) -> tuple[Any, int] | None:
        """A region of the memory and the offset of `size` bytes in it, below all that is reserved; None where there is no room."""
        if self._open() is None or self._mapping is None:
            return None
        offset = (self._floor - size) & -ALIGNMENT
        if offset < max(self._top, self._lowest):
            return None
        self._floor = offset
        self.touched = True
        return self._mapping.region(), offset

    def release(self, floor: int | None = None) -> None:
        """What is reserved begins at `floor`; None for nothing."""
        self._floor = self.size if floor is None else floor

    def place(self, numpy: Any, array: Any) -> int | None:
        """The offset at which `array` lies: where it was built, or where it is copied to. None where there is no room."""
        memory, size = self._open(), array.nbytes
        if memory is None:
            return None
        if array.flags.c_contiguous:
            self._address = self._address or numpy.frombuffer(memory, "u1").__array_interface__["data"][0]
            offset: int = array.__array_interface__["data"][0] - self._address
            if self._floor <= offset <= self.size - size:
                self.placed += size
                self.touched = True
                return offset
        at = self._take(size)
        if at is not None:
            numpy.frombuffer(memory, "u1", size, at).view(array.dtype).reshape(array.shape)[...] = array
        return at

    def place_bytes(self, value: bytes) -> int | None:
        """The offset of a copy of `value`. None where there is no room."""
        memory, size = self._open(), len(value)
        at = None if memory is None else self._take(size)
        if at is not None:
            memoryview(memory).cast("B")[at : at + size] = value
        return at

    def _take(self, size: int) -> int | None:
        at = -(-self._top // ALIGNMENT) * ALIGNMENT
        if at + size > self._floor:
            return None
        self._top = at + size
        self.placed += size
        self.touched = True
        return at


NOWHERE: Final = Sender(lambda: None)
"""For a connection without an arena: nobody places anything in it."""


class Receiver:
    """The end that reads. `limit` bounds what one message holds and refers to together, in bytes. `views`: arrays are lent, read-only,
    until `settle`; else copied."""

    __slots__ = ("_left", "_limit", "_map", "_mapping", "_region", "_used", "_window", "views")

    def __init__(self, map: Mapper, limit: int, *, views: bool) -> None:
        self._map = map
        self._limit = limit
        self.views = views
        self._mapping: Mapping | None = None
        self._region: Any = None
        self._window: memoryview | None = None
        self._used = 0
        self._left = 0

    def begin(self, size: int) -> None:
        """A message of `size` bytes is decoded next."""
        self._left = self._limit - size

    def take(self, offset: int, size: int) -> memoryview:
        """A read-only view of what one reference is to. Raises ValueError for one that no `Sender` makes, and what mapping raises."""
        if size < ARENA_VALUE_BYTES:
            raise ValueError(f"reference is to {size} bytes, which stand in the message itself")
        self._left -= size
        if self._left < 0:
            raise ValueError(f"message and what it refers to are longer than {self._limit} bytes, the limit")
        window = self._window or self._lend()
        end = offset + size
        if end > len(window):
            raise ValueError(f"reference ends at byte {end} of an arena of {len(window)}")
        self._used = max(self._used, end)
        return window[offset:end]

    def _lend(self) -> memoryview:
        if self._mapping is None:
            self._mapping = self._map()
            if self._mapping is None:
                raise ValueError("reference is to an arena, and none was offered")
        self._region = self._mapping.region()
        window = self._window = memoryview(self._region).cast("B").toreadonly()
        return window

    def settle(self) -> None:
        """The time of the views is over: what is held of them becomes a copy."""
        if self._window is None:
            return
        alive, used = weakref.ref(self._region), self._used
        self._window = self._region = None
        self._used = 0
        held = alive()
        if held is None:
            return
        self._mapping = None  # it is theirs now
        pages = memoryview(held).cast("B")
        for at in range(0, used, PAGE_BYTES):
            pages[at] = pages[at]
