"""Looks at the paths that workers may read: how wide each is, and which files below it look like secrets.

Names and modes only: no file is opened, no link followed. The search is bounded, and says when it was not seen to the end.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator

from pyproc.doctor.facts import Place, wide
from pyproc.sandbox import secrets as names

NAMES_MAX = 50_000  # names looked at below one path: a second's work
SHOWN_MAX = 20  # secrets remembered of one path
NO_SHELLS = frozenset({"nologin", "false", "sync"})
NOT_HOMES = frozenset({"/", "/bin", "/sbin", "/dev", "/usr/sbin", "/usr/bin", "/nonexistent"})


def look(paths: Iterable[str], worker_uid: int | None) -> tuple[Place, ...]:
    """Each path, as it is for workers of that uid."""
    people = [entry for entry in pwd.getpwall() if os.path.basename(entry.pw_shell) not in NO_SHELLS]
    homes = {entry.pw_dir.rstrip("/") for entry in people} - {"", *NOT_HOMES}
    return tuple(_look(os.path.realpath(path), homes, worker_uid) for path in paths)


def _look(path: str, homes: set[str], worker_uid: int | None) -> Place:
    secrets: list[str] = []
    seen = 0
    for entry in _below(path):
        seen += 1
        if seen > NAMES_MAX or len(secrets) >= SHOWN_MAX:
            break
        if names.named(os.path.basename(entry)) and _open_to(entry, worker_uid):
            secrets.append(os.path.relpath(entry, path) if entry != path else entry)
    return Place(path, wide(path, homes), tuple(secrets), seen <= NAMES_MAX)


def _below(path: str) -> Iterator[str]:
    """The path and everything below it that can be listed."""
    yield path
    for folder, folders, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def _open_to(path: str, uid: int | None) -> bool:
    """Whether this uid, which is in no group, may read what is there. Unknown counts as yes."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if stat.S_ISLNK(found.st_mode):
        return False
    return uid is None or bool(found.st_mode & (stat.S_IRUSR if found.st_uid == uid else stat.S_IROTH))
