"""The door to profiles: the two that are shipped, a file of the operator's, and what derive, plan and the tests ask for.

    shipped("strict") ─┐
    load(path) ────────┼─▶ Profile ──▶ derive (the two filters), to_oci (a file for a container engine)
    parse(text) ───────┘

What is behind each name has its rules in its own file: rules (values), oci (reading), oci_export (writing), needs (can
CPython start), remarks (what is wider than it looks).
"""

from __future__ import annotations

import os
from importlib.resources import files

from pyproc.config.files import read_regular
from pyproc.sandbox.needs import require_start
from pyproc.sandbox.oci import parse
from pyproc.sandbox.rules import Profile, ProfileError

SHIPPED = ("strict", "default")
FILE_MAX = 4 << 20  # bytes; the largest profile of a container engine is 20 KiB


def shipped(name: str, *, machine: str | None = None) -> Profile:
    """The profile `strict` or `default` that comes with this package."""
    if name not in SHIPPED:
        raise ProfileError(f"profile {name!r} is not shipped: use strict, default or a file in OCI seccomp format")
    return parse(files(__package__).joinpath("profiles", f"{name}.json").read_text("ascii"), machine=machine)


def named(name: str, *, machine: str | None = None) -> Profile:
    """A shipped profile, or the one in the file of that name. Raises ProfileError."""
    return shipped(name, machine=machine) if name in SHIPPED else load(name, machine=machine)


def load(path: str | os.PathLike[str], *, machine: str | None = None) -> Profile:
    """The profile in a file of the operator's, fit to start CPython. Raises ProfileError with the file, place and remedy."""
    try:
        text = read_regular(path, FILE_MAX)
    except OSError as bad:
        raise ProfileError(f"profile {os.fspath(path)!r} cannot be read ({bad.strerror}): use strict, default or a file") from bad
    try:
        found = parse(text, machine=machine)
        require_start(found)
    except ProfileError as bad:
        raise ProfileError(f"profile {os.fspath(path)!r}: {bad}") from bad
    return found
