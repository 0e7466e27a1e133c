"""Reads what a system call's pointer leads to, while its caller waits: bytes of another process's memory, by /proc/PID/mem.

Rules: the reader needs ptrace access to the process, as for its descriptors. What is read can change the next moment: it is fit to
observe and never to decide by. A page that is not there ends the text.
"""

from __future__ import annotations

import os

from pyproc.host import libc

PAGE = 4096  # bytes; a read is cut at page ends, as the next page may not be there


def read(pid: int, address: int, size: int) -> bytes:
    """At most `size` bytes at `address`; fewer where the mapping ends. Raises OSError where nothing can be read."""
    fd = libc.kernel.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        got = b""
        while len(got) < size:
            at = address + len(got)
            try:
                chunk = libc.kernel.pread(fd, min(size - len(got), PAGE - at % PAGE), at)
            except OSError:
                if got:
                    break
                raise
            if not chunk:
                break
            got += chunk
    finally:
        libc.kernel.close(fd)
    return got


def text(pid: int, address: int, size: int) -> bytes:
    """The bytes before the first NUL, at most `size`. Raises OSError where nothing can be read."""
    got = b""
    while len(got) < size:
        wanted = min(256, size - len(got))
        chunk = read(pid, address + len(got), wanted)
        head, nul, _ = chunk.partition(b"\0")
        got += head
        if nul or len(chunk) < wanted:
            break
    return got
