"""What a learning run never shows a worker: `reason(path, view)` is "" for a path that the next round may list.

Rules and reasons:
* A path is judged where it leads, and a folder by what is below it: listing a path shows all of that, whoever asked for it and
  for which part. The names are those of `sandbox.secrets`.
* The search below a folder is bounded, and a folder that is not seen to its end is not shown.
* Sockets, pipes and devices are doors to others, which a read-only view does not shut.
* Workers must reach the path by its modes from the root on, without us: what only root may read is not shown because root learns.
* Who needs what is withheld lists it in the configuration himself; nothing here refuses that.

By name and not by content: a hard link of a harmless name to a secret is not found.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from pyproc.sandbox import secrets
from pyproc.sandbox.paths import READ, View, look_here, walk

NAMES_MAX: Final = 10_000  # below one folder: a fifth of a second's work
DEPTH_MAX: Final = 32  # folders in each other


def reason(path: str, view: View) -> str:
    """Why `path` is not shown to the workers of `view`, who ask for it; "" where it may be. Looks at this machine."""
    place = walk(view._replace(mounted=False), path, look_here)
    if place.obstacle:
        return place.obstacle
    if place.found is None:
        return f"{place.path!r} is not there"
    why = secrets.reason(path) or secrets.reason(place.path)
    if why:
        return f"{why}, which is never proposed"
    if not view.may(place.found, READ):
        return f"{place.path!r} is closed to uid {view.uid} by its mode {stat.S_IMODE(place.found.mode):o}"
    if stat.S_ISDIR(place.found.mode):
        return _below(place.path)
    return "" if stat.S_ISREG(place.found.mode) else f"{place.path!r} is a socket, a pipe or a device"


def _below(top: str) -> str:
    waiting, seen = [(top, 1)], 0
    while waiting:
        folder, depth = waiting.pop()
        if depth > DEPTH_MAX:
            return f"{top!r} has more than {DEPTH_MAX} folders in each other, and is not looked through"
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    seen += 1
                    if seen > NAMES_MAX:
                        return f"{top!r} has more than {NAMES_MAX} names below it, and is not looked through"
                    why = _of_entry(entry)
                    if why:
                        return f"listing {top!r} shows all below it: {why}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except OSError as error:
            return f"{folder!r} cannot be looked through: {error.strerror}"
    return ""


def _of_entry(entry: os.DirEntry[str]) -> str:
    why = secrets.reason(entry.path)
    if why or entry.is_symlink():  # what a link leads to is shown only where it is listed too
        return why
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return ""
    return f"{entry.path!r} is a socket, a pipe or a device"
