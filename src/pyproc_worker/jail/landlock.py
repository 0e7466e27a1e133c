"""Landlock: a filesystem and network allowlist that needs no privilege (Linux 5.13; ABI 7 is the newest known here).

Restricts the calling thread only (TSYNC is ABI 8), so it is applied while the process has one. Sixteen domains can be
stacked. Once on, mount(2) is EPERM: mounts come first. Rights that a rule grants on a file must be file rights, or the
kernel answers EINVAL.
"""

from __future__ import annotations

import os
import struct

from pyproc_worker.jail import libc

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = 1, 2, 4, 8, 16, 32
MAKE_DIR, MAKE_REG, TRUNCATE, IOCTL_DEV = 128, 256, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
HANDLED_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
HANDLED_NEWEST = (1 << 16) - 1
NETWORK_RIGHTS = 3  # bind and connect TCP, ABI 4
SCOPES = 3  # abstract unix sockets and signals, ABI 6


def abi() -> int:
    """The kernel's Landlock ABI, 0 where it is not built or not enabled at boot."""
    try:
        return libc.call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def restrict(abi_version: int, rules: list[tuple[str, str]] | None) -> None:
    """Enter a new domain: `rules` are (path, "read" | "write"); None handles no files, only network and scopes."""
    handled = 0 if rules is None else HANDLED_BY_ABI.get(abi_version, HANDLED_NEWEST)
    network = NETWORK_RIGHTS if abi_version >= 4 else 0
    scopes = SCOPES if abi_version >= 6 else 0
    # older kernels answer E2BIG to a longer struct
    size = 24 if abi_version >= 6 else 16 if abi_version >= 4 else 8
    ruleset = libc.call("landlock_create_ruleset", struct.pack("=QQQ", handled, network, scopes), size, 0)
    try:
        for path, mode in rules or ():
            _allow(ruleset, path, (WRITE if mode == "write" else READ) & handled)
        libc.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        libc.call("landlock_add_rule", ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
