"""Another process's memory: as much as is there, a text to its end."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from pyproc.host import memory


def test_a_text_ends_at_its_nul_or_its_bound() -> None:
    buffer = ctypes.create_string_buffer(b"/srv/" + b"x" * 9000)
    at = ctypes.addressof(buffer)
    assert memory.text(os.getpid(), at, 20_000) == buffer.value
    assert memory.text(os.getpid(), at, 300) == buffer.value[:300]
    assert memory.read(os.getpid(), at, 5) == b"/srv/"


def test_a_page_that_is_not_there_ends_what_is_read() -> None:
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    pages[:] = b"x" * len(pages)
    at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.munmap(ctypes.c_void_p(at + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE))
    assert memory.text(os.getpid(), at + mmap.PAGESIZE - 10, 100) == b"x" * 10
    libc.mmap.restype = ctypes.c_void_p  # what the mapping unmaps at its end must be its own
    libc.mmap(ctypes.c_void_p(at + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 3, 0x32, -1, ctypes.c_long(0))


def test_an_address_that_is_not_mapped_cannot_be_read() -> None:
    with pytest.raises(OSError, match="Input/output error"):
        memory.read(os.getpid(), 16, 10)
