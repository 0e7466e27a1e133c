"""Open a file beneath a folder and nothing else: no absolute path, no "..", no link, no race.

openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS) where it is allowed (Linux 5.6); profile strict
refuses it, as its flags lie in memory. The fallback opens one component at a time with O_NOFOLLOW, which decides on the
same object that it opens. The guide's `startswith` on a path accepts `../data-evil` for base `data`, and races.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import IO, Any

NR_OPENAT2 = 437
RESOLVE = 0x08 | 0x04 | 0x02  # BENEATH, NO_SYMLINKS, NO_MAGICLINKS
MODES = {"r": os.O_RDONLY, "rb": os.O_RDONLY, "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
         "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC}


def safe_open(base: str | os.PathLike[str], path: str | os.PathLike[str], mode: str = "rb") -> IO[Any]:
    """Open `path` beneath `base` in mode r, rb, w or wb. Raises ValueError for a path that could leave, OSError."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; use one of {', '.join(MODES)}")
    text = os.fspath(path)
    parts = text.split("/")
    if not text or "\0" in text or text.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"path {text[:200]!r} is not a plain path beneath {os.fspath(base)!r}; give names without '..'")
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = MODES[mode] | os.O_CLOEXEC
    try:
        fd = _openat2(folder, text, flags)
        if fd is None:
            fd = _by_component(folder, parts, flags)
    finally:
        os.close(folder)
    return os.fdopen(fd, mode)


def _openat2(folder: int, path: str, flags: int) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    how = struct.pack("=QQQ", flags, 0o600 if flags & os.O_CREAT else 0, RESOLVE)
    result = int(libc.syscall(NR_OPENAT2, folder, os.fsencode(path), how, len(how)))
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if code in (1, 38):  # refused by a filter, or not known to this kernel
        return None
    raise OSError(code, os.strerror(code), path)


def _by_component(folder: int, parts: list[str], flags: int) -> int:
    at = os.dup(folder)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW, 0o600, dir_fd=at)
    finally:
        os.close(at)
