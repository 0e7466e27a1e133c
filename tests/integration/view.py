"""A view of the machine for programs that root's tests start: its closed folders can be passed, or it is an unprivileged user's.

An interpreter below root's home is out of reach for every other uid, and so for workers without a mount namespace. In a mount
namespace of the program's own a folder in the way is covered by an empty one that everybody may pass, in which what lies on the
way is put back. Nothing outside of the program sees it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import tempfile
from pathlib import Path

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 4096, 16384, 1 << 18, 2
UID = 41233  # no account, nor that of tools/elsewhere.py, which runs beside; never 65534, which stands for every unmapped uid
KERNEL = ctypes.CDLL(None, use_errno=True)


def must(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def of_its_own() -> None:
    """A mount namespace whose changes nobody else sees."""
    must(KERNEL.unshare(CLONE_NEWNS), "unshare")
    must(KERNEL.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private")


def open_the_way() -> None:
    """Make the interpreter and this project passable for every uid, after `of_its_own`."""
    for place in (sys.base_prefix, sys.prefix, __file__):
        way = Path(place).resolve()
        closed = next((folder for folder in reversed(way.parents) if not folder.stat().st_mode & stat.S_IXOTH), None)
        if closed is None:
            continue
        first = closed / way.relative_to(closed).parts[0]
        aside = tempfile.mkdtemp()
        must(KERNEL.mount(os.fsencode(first), aside.encode(), None, MS_BIND | MS_REC, None), f"keep {first}")
        must(KERNEL.mount(b"none", os.fsencode(closed), b"tmpfs", 0, b"mode=755,size=64k"), f"cover {closed}")
        first.mkdir(mode=0o755)
        must(KERNEL.mount(aside.encode(), os.fsencode(first), None, MS_BIND | MS_REC, None), f"put {first} back")
        must(KERNEL.umount2(aside.encode(), MNT_DETACH), f"let {aside} go")
        os.rmdir(aside)


def become_unprivileged() -> None:
    """The uid without any right, for good; readable by its own kind again."""
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    KERNEL.prctl(4, 1, 0, 0, 0)
