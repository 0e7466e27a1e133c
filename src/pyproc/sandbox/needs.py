"""What CPython needs to start, and the refusal of a profile that lacks some of it, before anything is loaded.

A worker under such a profile would die, or hang, before it could say why: so the profile is asked here, by simulation,
about each call with arguments as CPython gives them. Measured by refusing one call at a time.
"""

from __future__ import annotations

from pyproc.sandbox.rules import U64, Profile, ProfileError, syscall_table

# What CPython calls between the loading of the filter and an answered call, with arguments as it gives them.
# Refusing one of the first group alone made the start fail (3.11 to 3.13, glibc 2.36). Without the second a
# worker answers but does not last: memory, threads, signals, exit, and `fstat` where the C library does not
# write it as `newfstatat`.
NEEDED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("brk", ()), ("mmap", (0, 4096, 3, 0x22, U64, 0)), ("mprotect", ()), ("openat", (-100, 0, 0x80000)),
    ("close", ()),
    ("read", ()), ("write", ()), ("newfstatat", ()), ("getdents64", ()), ("getsockname", ()),
    ("getsockopt", (3, 1, 3)),
    ("recvfrom", ()), ("sendto", (3, 0, 0, 0x4000)),
    ("munmap", ()), ("fstat", ()), ("lseek", ()), ("getrandom", ()), ("futex", (0, 0x81, 1)),
    ("futex", (0, 0x189, 0)),
    ("rt_sigaction", ()), ("rt_sigreturn", ()), ("exit_group", ()),
)  # fmt: skip


def missing(profile: Profile) -> list[str]:
    """The calls that CPython needs to start and to answer, and that `profile` does not allow."""
    table = syscall_table(profile.machine)
    return sorted({n for n, args in NEEDED if n in table and not profile.permits(n, args)})


def require_start(profile: Profile) -> None:
    """Refuse a profile under which no worker could start, with the names of what it lacks."""
    if lacking := missing(profile):
        raise ProfileError(f"profile cannot start CPython, it lacks {', '.join(lacking)}: allow them, or copy strict.json")
