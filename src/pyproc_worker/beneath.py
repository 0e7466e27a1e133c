"""Open a file beneath a folder and nothing else: no absolute path, no "..", no link, no race, no device.

openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS) where it is allowed (Linux 5.6); profile strict
refuses it, as its flags lie in memory where a filter cannot read them. The fallback opens one component at a time with
O_NOFOLLOW, which decides on the same object that it opens. Comparing the start of a resolved path was rejected: it
accepts `../data-evil` for the base `data`, and races.

O_NONBLOCK keeps the opening of a pipe from waiting for its other end; what is no regular file is refused afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import IO, Any

NR_OPENAT2 = 437
RESOLVE = 0x08 | 0x04 | 0x02  # BENEATH, NO_SYMLINKS, NO_MAGICLINKS
WRITE = os.O_WRONLY | os.O_CREAT
MODES = {"r": os.O_RDONLY, "rb": os.O_RDONLY, "w": WRITE, "wb": WRITE}
ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
NOT_ALLOWED = (errno.EPERM, errno.ENOSYS)  # by a filter; by a kernel that does not know the call
CREATE_MODE = 0o600


def safe_open(base: str | os.PathLike[str], path: str | os.PathLike[str], mode: str = "rb") -> IO[Any]:
    """Open the regular file `path` beneath `base` in mode r, rb, w or wb; text is UTF-8.

    Raises ValueError for a path that could leave `base` and for what is no regular file, and OSError: a link anywhere
    in `path` is ELOOP or ENOTDIR. `base` itself is trusted and may be reached through links.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; use one of {', '.join(MODES)}")
    text = os.fsdecode(path)
    parts = text.split("/")
    if "\0" in text or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"path {text[:200]!r} is not a plain path beneath {os.fspath(base)!r}; give names without '..'")
    flags = MODES[mode] | ALWAYS
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _openat2(folder, text, flags)
        if fd is None:
            fd = _by_component(folder, parts, flags)
    finally:
        os.close(folder)
    return _stream(fd, text, mode)


def _stream(fd: int, path: str, mode: str) -> IO[Any]:
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"path {path[:200]!r} is not a regular file")
        os.set_blocking(fd, True)
        if mode.startswith("w"):
            os.ftruncate(fd, 0)  # here and not by O_TRUNC: only now it is known to be a file
        return os.fdopen(fd, mode) if "b" in mode else os.fdopen(fd, mode, encoding="utf-8")
    except BaseException:
        os.close(fd)
        raise


def _openat2(folder: int, path: str, flags: int) -> int | None:
    """A descriptor, or None where the call is not allowed."""
    import ctypes  # here, so that a worker that never opens a file does not load it

    libc = ctypes.CDLL(None, use_errno=True)
    how = struct.pack("=QQQ", flags, CREATE_MODE if flags & os.O_CREAT else 0, RESOLVE)
    wide = ctypes.c_long
    result = int(libc.syscall(wide(NR_OPENAT2), wide(folder), os.fsencode(path), how, wide(len(how))))
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if code in NOT_ALLOWED:
        return None
    raise OSError(code, os.strerror(code), path)


def _by_component(folder: int, parts: list[str], flags: int) -> int:
    at = os.dup(folder)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        return os.open(parts[-1], flags, CREATE_MODE, dir_fd=at)
    finally:
        os.close(at)
