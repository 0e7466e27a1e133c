"""A read-only root that holds what the plan lists and nothing else, by pivot_root(2).

open_tree + mount_setattr + move_mount instead of MS_REMOUNT: flags that a user namespace has locked make a remount
EPERM, while mount_setattr only adds bits. Sources are opened after the mount namespace exists (an older descriptor is
EINVAL) and before /tmp is covered. Trees are cloned, and made read-only, with what is mounted below them: in a user
namespace the mounts that were there before are locked to each other, and a tree without them is EINVAL (systemd covers
/usr/lib/modules, container engines mount single libraries). Order: private propagation, sources, tmpfs root, binds,
links, scratch, pivot, root read-only.
"""

from __future__ import annotations

import os
import struct
from typing import Any

from pyproc_worker.jail import libc

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
MNT_DETACH = 2
OPEN_TREE_CLONE, AT_EMPTY_PATH, AT_RECURSIVE, MOVE_MOUNT_F_EMPTY_PATH, AT_FDCWD = 1, 0x1000, 0x8000, 4, -100
ATTRIBUTES = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
ROOT_TMPFS = b"size=256k,nr_inodes=1024,mode=755"  # holds mount points and links only


def enter_root(plan: dict[str, Any]) -> None:
    """Make the root described by plan["mounts"], plan["links"] and plan["scratch"] and move into it."""
    libc.call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    opened = []
    for mount in plan["mounts"]:
        fd = os.open(mount["source"], os.O_PATH | os.O_CLOEXEC)
        opened.append((mount, fd, os.path.isdir(mount["source"])))
    root = "/tmp" if os.path.isdir("/tmp") else "/run"  # noqa: S108 - any directory serves as the place of the new root
    libc.call("mount", b"tmpfs", os.fsencode(root), b"tmpfs", MS_NOSUID | MS_NODEV, ROOT_TMPFS)
    os.chdir(root)
    for mount, fd, is_directory in opened:
        _bind(fd, root + mount["target"], mount["flags"], is_directory=is_directory)
        os.close(fd)
    for link, target in plan["links"].items():
        if not os.path.lexists(root + link):
            os.makedirs(os.path.dirname(root + link), exist_ok=True)
            os.symlink(target, root + link)
    os.makedirs(root + plan["scratch"]["path"], exist_ok=True)
    if plan["scratch"]["bytes"]:
        options = f"size={plan['scratch']['bytes']},nr_inodes={plan['scratch']['files']},mode=1777"
        libc.call("mount", b"tmpfs", os.fsencode(root + plan["scratch"]["path"]), b"tmpfs",
                  MS_NOSUID | MS_NODEV | MS_NOEXEC, options.encode())
    libc.call("pivot_root", b".", b".")
    libc.call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    _set_attributes(AT_FDCWD, b"/", ATTRIBUTES["ro"], 0)


def _bind(fd: int, target: str, flags: list[str], *, is_directory: bool) -> None:
    if is_directory:
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    tree = libc.call("open_tree", fd, b"", OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE)
    try:
        attributes = 0
        for flag in flags:
            attributes |= ATTRIBUTES[flag]
        _set_attributes(tree, b"", attributes, AT_EMPTY_PATH | AT_RECURSIVE)
        libc.call("move_mount", tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _set_attributes(fd: int, path: bytes, attributes: int, at_flags: int) -> None:
    # struct mount_attr { u64 attr_set, attr_clr, propagation, userns_fd }
    libc.call("mount_setattr", fd, path, at_flags, struct.pack("=QQQQ", attributes, 0, MS_PRIVATE, 0), 32)
