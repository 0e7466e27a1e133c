"""Identity and capabilities: drop everything, then read it back.

Order matters: the bounding set while CAP_SETPCAP is still there, securebits before the uid changes, the uid, then the
empty capability set. `drop_capabilities` is used twice: by the zygote, and by each worker after its own user namespace
has handed it a full set again.
"""

from __future__ import annotations

import ctypes
import os
import struct

from pyproc_worker.jail import libc

PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 23, 24, 28
SECUREBITS = 0xEF  # NOROOT, NO_SETUID_FIXUP, KEEP_CAPS locked off, NO_CAP_AMBIENT_RAISE, with their locks
CAPABILITY_VERSION_3 = 0x20080522
EMPTY_HEADER = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)  # struct { u32 version; int pid }
EMPTY_SETS = bytes(24)  # twice { u32 effective, permitted, inheritable }


def drop_bounding() -> None:
    """Empty the bounding set; EINVAL marks the first number that the kernel does not know."""
    capability = 0
    while True:
        try:
            libc.prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == 22:
                return
            raise
        capability += 1


def bounding_drops() -> list[libc.Prepared]:
    """The calls that empty a full bounding set, to be issued in a process forked from this one."""
    option = ctypes.c_long(PR_CAPBSET_DROP)
    return [libc.prepare("prctl", option, capability) for capability in range(_known())]  # reads no third argument


def _known() -> int:
    """How many capabilities the kernel knows, from 0: EINVAL marks the first number that it does not."""
    capability = 0
    while True:
        try:
            libc.prctl(PR_CAPBSET_READ, capability)
        except OSError as error:
            if error.errno == 22:
                return capability
            raise
        capability += 1


def drop_capabilities(become: tuple[int, int] | None = None, *, bounding: bool = True) -> None:
    """Bounding set, securebits, the inner (uid, gid) to become, the three capability sets. Raises OSError.

    `bounding` is False where there is no CAP_SETPCAP to drop it with: an unprivileged user without a user namespace,
    for whom NO_NEW_PRIVS makes the bounding set meaningless.
    """
    if bounding:
        drop_bounding()
        libc.prctl(PR_SET_SECUREBITS, SECUREBITS)
    if become is not None:
        uid, gid = become
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    libc.call("capset", EMPTY_HEADER, EMPTY_SETS)
