"""Ends what was forked from a zygote and is no worker: a start that was given up, whoever it is and whatever it said.

A process that never asked and never greeted has no name but "a child of the zygote". A worker's orphan becomes one too: it is
known by its session and left to the worker's end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Set

from pyproc.host import pidfd, procfs


def end_strangers(zygote: int, workers: Set[int]) -> None:
    """SIGKILL to each child of `zygote` that is not among `workers` nor in the session of one."""
    try:
        strangers = set(procfs.children(zygote)) - workers
    except OSError:
        return  # the zygote is gone, and all with it
    for pid in strangers:
        with contextlib.suppress(OSError):
            _end(pid, zygote, workers)


def _end(pid: int, zygote: int, workers: Set[int]) -> None:
    held = pidfd.open(pid)
    try:
        found = procfs.stat(pid)  # a number that was taken anew since is no child of the zygote
        if found.parent == zygote and found.session not in workers:
            pidfd.kill(held)
    finally:
        os.close(held)
