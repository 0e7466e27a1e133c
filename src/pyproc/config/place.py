"""Where a configuration is looked for, and whose it then must be.

A configuration names programs that run and files that are shown. One that --config names was chosen by who gives the command; one that
is found was chosen by who put it there. So the latter must be in the hands of the same user or of root: the file and its folder,
and, of a link, those that it leads to.
"""

from __future__ import annotations

import os
import stat

from pyproc.errors import ConfigError

PLACES = ("pyproc.toml", "/etc/pyproc/pyproc.toml")  # in this order


def found() -> str | None:
    """The first of PLACES that exists. Raises ConfigError where others could have written it."""
    place = next((place for place in PLACES if os.path.lexists(place)), None)
    if place is not None:
        own, real = os.path.abspath(place), os.path.realpath(place)
        for path in dict.fromkeys((os.path.dirname(own), own, os.path.dirname(real), real)):
            _refuse_of_others(place, path)
    return place


def _refuse_of_others(place: str, path: str) -> None:
    try:
        there = os.lstat(path)
    except OSError:
        return  # it cannot be read either, which is told by who reads it
    # many have a group of their own, and write for it by default
    others = stat.S_IWOTH if there.st_gid in (0, os.getegid()) else stat.S_IWOTH | stat.S_IWGRP
    if there.st_uid in (0, os.geteuid()) and (stat.S_ISLNK(there.st_mode) or not there.st_mode & others):
        return
    raise ConfigError(f"config {place!r} was found and not named, and {path!r} is of uid {there.st_uid} with mode "
                      f"{stat.S_IMODE(there.st_mode):o}: others could have written what would run here; if it is meant, name it: "
                      f"--config {place}")
