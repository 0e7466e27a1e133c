"""Identity and capabilities: drop everything, then read it back.

Order matters: the bounding set while CAP_SETPCAP is still there, securebits before the uid changes, the uid, then the
empty capability set. `drop_capabilities` is used twice: by the zygote, and by each worker after its own user namespace
has handed it a full set again.
"""

from __future__ import annotations

import os
import struct

from pyproc_worker.jail import libc

PR_CAPBSET_DROP, PR_SET_SECUREBITS = 24, 28
SECUREBITS = 0xEF  # NOROOT, NO_SETUID_FIXUP, KEEP_CAPS locked off, NO_CAP_AMBIENT_RAISE, with their locks
CAPABILITY_VERSION_3 = 0x20080522


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
    # struct { u32 version; int pid }, then two { u32 effective, permitted, inheritable }
    libc.call("capset", struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))
