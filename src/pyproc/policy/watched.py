"""The system calls by which a program reaches files and addresses, and how an observed one becomes an act.

Each entry says where its path is; what a path is relative to is read from the caller's descriptors and working folder. Calls that
only act on descriptors are not here: how those were opened has been seen.
"""

from __future__ import annotations

import os
import posixpath
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from pyproc.host import memory, procfs
from pyproc.host.notify import Notification
from pyproc.sandbox import acts
from pyproc.sandbox.acts import Act

PATH_BYTES: Final = 4096  # the kernel's PATH_MAX
ADDRESS_BYTES: Final = 110  # sizeof(struct sockaddr_un)
AT_FDCWD: Final = 0xFFFFFF9C  # -100 in 32 bits


class Watched(NamedTuple):
    """`folder`: which argument is the folder's descriptor, -1 where there is none; `path`: which is the path; `kind`: of the act;
    `flags`: which argument says more of it."""

    folder: int
    path: int
    kind: str
    flags: int = -1


WATCHED: Final[dict[str, tuple[Watched, ...]]] = {
    "open": (Watched(-1, 0, "open", 1),), "openat": (Watched(0, 1, "open", 2),), "openat2": (Watched(0, 1, "open"),),
    "stat": (Watched(-1, 0, "stat"),), "lstat": (Watched(-1, 0, "stat"),), "newfstatat": (Watched(0, 1, "stat"),),
    "statx": (Watched(0, 1, "stat"),), "access": (Watched(-1, 0, "stat"),), "faccessat": (Watched(0, 1, "stat"),),
    "faccessat2": (Watched(0, 1, "stat"),), "readlink": (Watched(-1, 0, "stat"),), "readlinkat": (Watched(0, 1, "stat"),),
    "statfs": (Watched(-1, 0, "stat"),), "chdir": (Watched(-1, 0, "list"),),
    "mkdir": (Watched(-1, 0, "mkdir"),), "mkdirat": (Watched(0, 1, "mkdir"),), "rmdir": (Watched(-1, 0, "rmdir"),),
    "unlink": (Watched(-1, 0, "remove"),), "unlinkat": (Watched(0, 1, "remove"),),
    "rename": (Watched(-1, 0, "rename"), Watched(-1, 1, "rename")), "renameat": (Watched(0, 1, "rename"), Watched(2, 3, "rename")),
    "renameat2": (Watched(0, 1, "rename"), Watched(2, 3, "rename")),
    "link": (Watched(-1, 1, "link"),), "linkat": (Watched(2, 3, "link"),),
    "symlink": (Watched(-1, 1, "symlink"),), "symlinkat": (Watched(1, 2, "symlink"),), "truncate": (Watched(-1, 0, "truncate"),),
    "chmod": (Watched(-1, 0, "chmod"),), "fchmodat": (Watched(0, 1, "chmod"),), "chown": (Watched(-1, 0, "chown"),),
    "fchownat": (Watched(0, 1, "chown"),), "utimensat": (Watched(0, 1, "utime"),), "mknod": (Watched(-1, 0, "mkfifo"),),
    "mknodat": (Watched(0, 1, "mkfifo"),), "execve": (Watched(-1, 0, "exec"),), "execveat": (Watched(0, 1, "exec"),),
}
ADDRESSED: Final = {"connect": "connect", "bind": "listen"}


def acts_of(call: Notification, name: str) -> list[Act]:
    """What the caller is about to do, as far as its memory tells; nothing for a call that is not watched. Raises OSError."""
    if name in ADDRESSED:
        act = _addressed(memory.read(call.pid, call.arguments[1], ADDRESS_BYTES), ADDRESSED[name])
        return [] if act is None else [act]
    return [Act(_kind(call, entry), path) for entry in WATCHED.get(name, ()) if (path := _path(call, entry))]


def _kind(call: Notification, entry: Watched) -> str:
    flags = 0 if entry.flags < 0 else call.arguments[entry.flags]
    if flags & acts.WRITES:
        return "write"
    return "list" if flags & acts.O_DIRECTORY else entry.kind


def _path(call: Notification, entry: Watched) -> str:
    pointer = call.arguments[entry.path]
    if not pointer:
        return ""  # the descriptor itself is meant
    path = os.fsdecode(memory.text(call.pid, pointer, PATH_BYTES))
    if not path or path.startswith("/"):
        return posixpath.normpath(path) if path and ".." not in path else path
    folder = AT_FDCWD if entry.folder < 0 else call.arguments[entry.folder] & 0xFFFFFFFF
    where = procfs.folder(call.pid) if folder == AT_FDCWD else procfs.descriptors(call.pid).get(folder, "")
    return posixpath.join(where, path) if where.startswith("/") else ""


def _addressed(address: bytes, kind: str) -> Act | None:
    family = int.from_bytes(address[:2], "little")
    readers: dict[int, Callable[[bytes, str], Act | None]] = {acts.AF_UNIX: _unix, acts.AF_INET: _inet, acts.AF_INET6: _inet6}
    reader = readers.get(family)
    return None if reader is None else reader(address, kind)


def _unix(address: bytes, kind: str) -> Act | None:
    path = address[2:].partition(b"\0")[0]
    return Act(kind, os.fsdecode(path)) if path.startswith(b"/") else None  # abstract names are the namespace's own


def _inet(address: bytes, kind: str) -> Act | None:
    if len(address) < 8:
        return None
    return Act(kind, host=".".join(map(str, address[4:8])), port=struct.unpack(">H", address[2:4])[0])


def _inet6(address: bytes, kind: str) -> Act | None:
    if len(address) < 24:
        return None
    groups = struct.unpack(">8H", address[8:24])
    return Act(kind, host=":".join(f"{group:x}" for group in groups), port=struct.unpack(">H", address[2:4])[0])
