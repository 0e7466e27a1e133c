"""Landlock rulesets, made here for others: whoever holds the descriptor may enter the domain (landlock(7), Linux 5.13).

A ruleset that a confined process makes itself could have been made by hostile code in it. One that is lent can be entered, and
changed only by landlock_add_rule(2), which the filters of pyproc refuse.
"""

from __future__ import annotations

import struct

from pyproc.host import libc

NETWORK_RIGHTS = 3  # bind and connect TCP, ABI 4
SCOPES = 3  # abstract unix sockets and signals, ABI 6


def ruleset(abi: int) -> int:
    """A ruleset without rules on network and, from ABI 6 on, scopes: no files, as they are the outer domain's. Raises OSError."""
    if abi < 6:  # older kernels answer E2BIG to a longer struct
        return libc.kernel.landlock_create_ruleset(struct.pack("=QQ", 0, NETWORK_RIGHTS))
    return libc.kernel.landlock_create_ruleset(struct.pack("=QQQ", 0, NETWORK_RIGHTS, SCOPES))
