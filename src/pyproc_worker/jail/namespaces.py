"""Namespaces: unshare(2) by name.

A user namespace must be entered by a process with one thread (EINVAL otherwise). Its maps are written by the
supervisor from outside, for root and for an unprivileged user alike: the owner of a namespace holds every capability
in it, so one code path serves both and no privileged helper is forked here.
"""

from __future__ import annotations

from pyproc_worker.jail import libc

FLAGS = {
    "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000, "mount": 0x00020000,
}


def unshare(kinds: list[str]) -> None:
    """Leave the namespaces named in `kinds` (keys of FLAGS). Raises OSError."""
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    if flags:
        libc.call("unshare", flags)
