"""Frames: the length is judged first, the chunking never matters, and nothing is kept beyond the limit."""

from __future__ import annotations

import struct

import pytest

from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError
from pyproc_wire.frame import FrameReader, frame
from pyproc_wire.limits import FRAME_BYTES_MAX


def test_frame_has_its_length_in_front() -> None:
    assert frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_an_empty_payload_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="0 bytes"):
        frame(b"")


@pytest.mark.parametrize("limit", [0, -1, FRAME_BYTES_MAX + 1])
def test_a_limit_that_no_header_can_name_is_refused(limit: int) -> None:
    with pytest.raises(LocalProtocolError):
        FrameReader(limit)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_byte_by_byte_equals_one_chunk(size: int) -> None:
    raw = frame(b"x" * size) + frame(b"y") + frame(b"z" * size)
    whole = FrameReader(10).feed(raw)
    reader = FrameReader(10)
    single = [payload for at in range(len(raw)) for payload in reader.feed(raw[at : at + 1])]
    assert single == whole == [b"x" * size, b"y", b"z" * size]


def test_the_limit_itself_is_permitted_and_one_more_is_not() -> None:
    assert FrameReader(3).feed(frame(b"abc")) == [b"abc"]
    with pytest.raises(RemoteProtocolError, match="frame is 4 bytes, limit is 3") as refused:
        FrameReader(3).feed(frame(b"abcd"))
    assert refused.value.code == "payload_too_large"


def test_an_oversize_length_is_refused_before_its_payload_comes() -> None:
    reader = FrameReader(3)
    assert reader.feed(b"\xff\xff\xff") == []
    with pytest.raises(RemoteProtocolError):
        reader.feed(b"\xff")
    assert not reader.mid_frame


def test_an_empty_frame_is_refused_and_earlier_payloads_are_kept() -> None:
    reader = FrameReader(10)
    with pytest.raises(RemoteProtocolError, match="empty") as refused:
        reader.feed(frame(b"one") + frame(b"two") + struct.pack(">I", 0) + frame(b"three"))
    assert refused.value.before == [b"one", b"two"]
    assert refused.value.code == "invalid_argument"


def test_nothing_is_read_after_a_violation() -> None:
    reader = FrameReader(10)
    with pytest.raises(RemoteProtocolError):
        reader.feed(struct.pack(">I", 0))
    with pytest.raises(RemoteProtocolError):
        reader.feed(frame(b"fine"))


def test_a_large_payload_in_many_chunks_arrives_whole() -> None:
    body = bytes(range(256)) * 4096
    reader = FrameReader(len(body))
    raw = frame(body)
    got = [payload for at in range(0, len(raw), 65_536) for payload in reader.feed(raw[at : at + 65_536])]
    assert got == [body]
