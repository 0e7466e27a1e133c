"""Reading a file that somebody named or that lies where one is looked for: regular, bounded, never waited for."""

from __future__ import annotations

import errno
import os
import stat


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file. Raises OSError, of another kind of file and of one of more than `limit` bytes too; ValueError of
    a path with NUL in it."""
    if "\0" in os.fspath(path):
        raise ValueError("embedded null byte")  # each version of Python has another text
    # a pipe is opened without waiting for its writer, and a terminal without becoming ours
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is longer than {limit} bytes", path)
    return data
