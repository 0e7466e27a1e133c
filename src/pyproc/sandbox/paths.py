"""Where a path leads inside the sandbox: through the mounted root, its links, and the modes of what is on the machine.

    walk(view, path, look) ──▶ Place: mounted | device | scratch | root | nowhere | host, with what is there

`look` tells what the machine has at a path; without it (a path that a worker reports must not make the supervisor touch the
machine: a stat can hang on a dead file server) everything is taken to be there and to be no link. Pure but for `look_here`.

Rules of the jail that this repeats: sources are mounted with what is mounted below them; the folders above a mount are made in
a small read-only file system; only /lib, /lib64, /bin and /sbin are links in its root (pyproc_worker.jail.mounts).
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Mapping
from errno import EACCES, ELOOP
from typing import NamedTuple

LINKS_MAX = 40  # the kernel's MAXSYMLINKS
READ, WRITE, SEARCH = 4, 2, 1


class Found(NamedTuple):
    """What the machine has at a path: as lstat(2), and where a link leads."""

    mode: int
    uid: int
    gid: int
    target: str = ""


Look = Callable[[str], Found | None]


class View(NamedTuple):
    """What workers are shown and who they are. `mounted` is False where they see the machine's own files, by Landlock's leave."""

    mounted: bool
    mounts: tuple[str, ...]
    devices: tuple[str, ...]
    links: Mapping[str, str]
    scratch: str
    uid: int
    gid: int
    groups: frozenset[int]

    def region(self, path: str) -> str:
        """mounted, device, scratch, root (a folder of the small root) or nowhere; host without a mounted root."""
        if not self.mounted:
            return "host"
        if path in self.devices:
            return "device"
        if beneath(path, self.scratch):
            return "scratch"
        if any(beneath(path, mount) for mount in self.mounts):
            return "mounted"
        places = (*self.mounts, *self.devices, *self.links, self.scratch)
        return "root" if any(beneath(place, path) for place in places) else "nowhere"

    def may(self, found: Found, right: int) -> bool:
        """By the mode bits; access lists are not looked at."""
        shift = 6 if found.uid == self.uid else 3 if found.gid == self.gid or found.gid in self.groups else 0
        return bool(found.mode >> shift & right)


class Place(NamedTuple):
    """`path` after links and dots; `found`: None where nothing is there or nobody looked. `obstacle`: why it is not reached, which
    the kernel tells by `errno`."""

    path: str
    region: str
    found: Found | None = None
    missing: bool = False
    obstacle: str = ""
    errno: int = 0


def beneath(path: str, folder: str) -> bool:
    """`path` is `folder` or lies below it; both absolute and without dots."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def walk(view: View, path: str, look: Look | None, *, follow: bool = True) -> Place:
    """Follow `path`, which is taken from / where it is relative, as a worker's working folder is /."""
    waiting = [part for part in posixpath.join("/", path).split("/") if part not in ("", ".")]
    here, links = "/", 0
    found: Found | None = None
    while waiting:
        part = waiting.pop(0)
        step = posixpath.dirname(here) if part == ".." else posixpath.join(here, part)
        region = view.region(step)
        if region == "nowhere":
            return Place(posixpath.join(step, *waiting), region)
        target = view.links.get(step, "") if view.mounted and region == "root" else ""
        found = look(step) if look is not None and region in ("mounted", "host", "device") else None
        if look is not None and region in ("mounted", "host") and found is None:
            return Place(posixpath.join(step, *waiting), region, missing=True)
        if found is not None and stat.S_ISLNK(found.mode) and (follow or waiting):
            target = found.target
        if target:
            links += 1
            if links > LINKS_MAX:
                return Place(step, region, obstacle=f"more than {LINKS_MAX} symbolic links", errno=ELOOP)
            waiting = [part for part in target.split("/") if part not in ("", ".")] + waiting
            here = "/" if target.startswith("/") else here
            continue
        if found is not None and stat.S_ISDIR(found.mode) and waiting and not view.may(found, SEARCH):
            closed = f"the folder {step!r} is closed to uid {view.uid} by its mode {stat.S_IMODE(found.mode):o}"
            return Place(posixpath.join(step, *waiting), region, found, obstacle=closed, errno=EACCES)
        here = step
    return Place(here, view.region(here), found)


def shown_for(path: str, look: Look | None) -> str:
    """What listing `path` shows: of a symbolic link what it leads to, as the plan does."""
    found = look(path) if look is not None else None
    if found is None or not stat.S_ISLNK(found.mode):
        return path
    return led_to(path, look)


def led_to(path: str, look: Look | None) -> str:
    """`path` with every link on its way and at its end followed, as far as the machine has it."""
    everywhere = View(False, (), (), {}, "/", 0, 0, frozenset())
    return walk(everywhere, path, look).path


def look_here(path: str) -> Found | None:
    """What this machine has at `path`."""
    try:
        told = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(told.st_mode) else ""
    except (OSError, ValueError):
        return None
    return Found(told.st_mode, told.st_uid, told.st_gid, target)
