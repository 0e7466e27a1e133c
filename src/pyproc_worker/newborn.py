"""From the fork to `ready`: what a new process does before it serves, and its rehearsal in the zygote.

    descriptors 0-5 -> own user namespace, no capabilities, Landlock, filter (`jail.worker`) -> ready -> fresh randomness -> requests

The supervisor attests on `ready`, so whatever it does not look at is done after it, and before the first request is read.

A page that is written after a fork is copied first, at 1 to 4 microseconds: not the work itself but the count of pages that it
touches is what a start costs. So nothing is imported, converted or made here that can be made before, and the zygote runs
the same code beforehand: a first run binds symbols, fills caches and specialises code, all by writing.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from pyproc_worker import one_thread
from pyproc_worker.channel import Channel
from pyproc_worker.entropy import reseed
from pyproc_worker.jail.worker import LENT, REHEARSALS, Confinement
from pyproc_worker.loop import prepare
from pyproc_worker.registry import current

ANSWERS, REQUESTS, GREETING = 3, 4, 5
PLACES = (1, 2, ANSWERS, REQUESTS, GREETING)  # of what is lent, in its order
REPORT_BYTES = 65536


def become_worker(go_on: Callable[[], None], confinement: Confinement | None, fds: list[int]) -> NoReturn:
    """Serve on the lent `fds` until the supervisor hangs up; `go_on` was prepared for PLACES, the worker's own from now."""
    code = 70
    try:
        null = _take(fds, 0, PLACES)
        if confinement is not None:
            confinement.enter(fds[-1] if len(fds) == LENT else -1)
        os.close(null)
        for fd in fds:
            os.close(fd)
        go_on()
        code = 0
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        os.write(2, ("worker could not start: " + traceback.format_exc()[-REPORT_BYTES:]).encode())
    os._exit(code)


def serving(limits: dict[str, int], channel: Channel | None = None) -> Callable[[], None]:
    """The rest of a worker's life on `channel`, or in PLACES, prepared."""
    return prepare(channel or Channel(REQUESTS, ANSWERS, GREETING), current, request_limit=limits["request"],
                   response_limit=limits["response"], details={}, settle=_settle)


def _settle() -> None:
    reseed()
    gc.enable()


def keep_places() -> None:
    """In the zygote, before the script runs: what it opens goes elsewhere."""
    for place in (REQUESTS, GREETING):
        os.dup2(0, place, inheritable=False)


def _take(fds: Sequence[int], stdin: int, places: tuple[int, ...]) -> int:
    """Put /dev/null and what was lent to their places; the spare descriptor of /dev/null."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, stdin)
    for fd, place in zip(fds, places, strict=False):  # a ruleset may follow
        os.dup2(fd, place, inheritable=place <= 2)
    return null


def rehearse(limits: dict[str, int], confinement: Confinement) -> None:
    """Run the steps of a start in the zygote, without effect: `serve` meets a supervisor that has nothing to say."""
    one_thread.nothing_to_do = one_thread.is_alone()
    try:
        confinement.rehearse()
        for _ in range(REHEARSALS):
            spare = os.open("/dev/null", os.O_RDWR)
            null = _take((spare,) * len(PLACES), 0, (0, 0, 0, REQUESTS, GREETING))
            os.close(spare)
            serving(limits, Channel(null, null, os.dup(REQUESTS)))()
            os.close(null)
    except OSError:
        pass  # the script left no descriptors: a slower start is all that follows
