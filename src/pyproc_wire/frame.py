"""Frames: `[4 bytes: length, big-endian, unsigned][payload]`.

The length is checked when its four bytes are there and before one byte of the payload is kept, so that what
a peer can make us hold is the limit plus one chunk, and only as much as it really sent: nothing is
allocated by its word.

Nearly every chunk is exactly one whole frame; that case costs one comparison and one slice. Memory views
into the chunk were rejected: a kept body would keep the whole chunk, and a slice of a chunk is cheaper than
its bookkeeping.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.limits import FRAME_BYTES_MAX, HEADER_BYTES

_LENGTH: Final = struct.Struct(">I")
_length_of: Final = _LENGTH.unpack_from

header: Final = _LENGTH.pack
"""The four bytes in front of a payload of so many bytes; for callers that have checked the length."""

BRIEF_BYTES: Final = 68
"""A chunk below it may be brief, a whole frame at a glance: it begins with the header that stands at its length in
`BRIEF_HEADERS`."""

BRIEF_HEADERS: Final = (*(None for _ in range(HEADER_BYTES + 1)), *map(header, range(1, BRIEF_BYTES - HEADER_BYTES)))


def frame(payload: bytes) -> bytes:
    """`payload` with its length in front.

    Raises LocalProtocolError for an empty payload and for one that the header cannot name.
    """
    size = len(payload)
    if not 0 < size <= FRAME_BYTES_MAX:
        raise LocalProtocolError(f"payload is {size} bytes, a frame holds 1 to {FRAME_BYTES_MAX}")
    return header(size) + payload


class FrameReader:
    """Cuts a stream of bytes into payloads, however the bytes are chunked.

    `limit` is the longest payload in bytes. After a violation the reader refuses all further bytes.
    """

    __slots__ = ("limit", "_kept", "_need", "_sole_limit", "_violation")

    def __init__(self, limit: int) -> None:
        if not 0 < limit <= FRAME_BYTES_MAX:
            raise LocalProtocolError(f"frame limit is {limit} bytes, possible are 1 to {FRAME_BYTES_MAX}")
        self.limit = limit
        self._kept = bytearray()
        self._need = HEADER_BYTES
        self._sole_limit = limit  # of a frame that comes alone: 0 while another is under way, and after a violation
        self._violation: str | None = None

    @property
    def mid_frame(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._kept)

    def sole(self, data: bytes | bytearray) -> bytes | bytearray | None:
        """The payload, if no frame is under way and `data` is exactly one; else None, and nothing is taken in."""
        size = len(data) - HEADER_BYTES
        if 0 < size <= self._sole_limit and _length_of(data)[0] == size:
            return data[HEADER_BYTES:]
        return None

    def feed(self, data: bytes | bytearray) -> list[bytes | bytearray]:
        """The payloads that `data` completes, in order.

        Raises RemoteProtocolError for an empty frame or one beyond the limit; its `before` holds the payloads
        that were complete by then.
        """
        payload = self.sole(data)
        if payload is not None:
            return [payload]
        try:
            return self._cut(data)
        finally:
            self._sole_limit = 0 if self._kept or self._violation is not None else self.limit

    def _cut(self, data: bytes | bytearray) -> list[bytes | bytearray]:
        payloads: list[bytes | bytearray] = []
        if self._violation is not None:
            self._refuse(self._violation, payloads)
        view = memoryview(data)
        at = 0
        while at < len(view):
            kept = self._kept
            chunk = view[at : at + self._need - len(kept)]
            at += len(chunk)
            kept += chunk
            if len(kept) < self._need:
                break
            if self._need == HEADER_BYTES:
                size = self._length(kept, payloads)
                if at + size <= len(view):
                    payloads.append(bytes(view[at : at + size]))
                    at += size
                    kept.clear()
                else:
                    self._need = HEADER_BYTES + size
            else:
                # Deleting at the front of a bytearray moves its start and copies nothing.
                del kept[:HEADER_BYTES]
                payloads.append(kept)
                self._kept = bytearray()
                self._need = HEADER_BYTES
        return payloads

    def _length(self, first: bytearray, before: list[bytes | bytearray]) -> int:
        size: int = _length_of(first)[0]
        if size == 0:
            self._refuse("frame is empty, a payload has at least 1 byte", before)
        if size > self.limit:
            self._refuse(f"frame is {size} bytes, limit is {self.limit}", before, "payload_too_large")
        return size

    def _refuse(self, text: str, before: list[bytes | bytearray], code: str = "invalid_argument") -> NoReturn:
        self._violation = text
        self._kept = bytearray()
        error = RemoteProtocolError(text, code=code)
        error.before = list(before)
        raise error
