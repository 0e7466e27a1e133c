"""From the fork to `ready`: what a new process does before it serves, and its rehearsal in the zygote.

    descriptors 0-7 -> own user namespace, no capabilities, Landlock, filter (`jail.worker`) -> ready -> fresh randomness -> requests

The supervisor attests on `ready`, so whatever it does not look at is done after it, and before the first request is read.

A page that is written after a fork is copied first, at 1 to 4 microseconds: not the work itself but the count of pages that it
touches is what a start costs. So nothing is imported, converted or made here that can be made before, and the zygote runs
the same code beforehand: a first run binds symbols, fills caches and specialises code, all by writing.
"""

from __future__ import annotations

import ctypes
import gc
import os
import traceback
from collections.abc import Callable
from errno import EBADF
from functools import partial
from typing import Any, NoReturn

from pyproc_wire.places import ANSWERS, ARENA_ANSWERS, ARENA_REQUESTS, GREETING, REQUESTS
from pyproc_worker import one_thread
from pyproc_worker.channel import Channel
from pyproc_worker.entropy import reseed
from pyproc_worker.jail import libc
from pyproc_worker.jail.worker import LENT, REHEARSALS, Confinement
from pyproc_worker.loop import prepare, rehearsal
from pyproc_worker.registry import current

PLACES = (1, 2, ANSWERS, REQUESTS, GREETING, ARENA_REQUESTS, ARENA_ANSWERS)  # of what is lent, in its order
AT_FDCWD = -100  # fcntl.h: relative to the working directory
REPORT_BYTES = 65536


class Newborn:
    """A process that will be forked to serve on what it is lent; `go_on` was prepared for PLACES, the worker's own from then."""

    def __init__(self, go_on: Callable[[], None], confinement: Confinement | None) -> None:
        self._go_on = go_on
        self._confinement = confinement
        self._lent: list[int] = []
        self._numbers = [ctypes.c_long(-1) for _ in PLACES]
        self._stdin = (libc.prepare("close", 0), libc.prepare("openat", AT_FDCWD, b"/dev/null", os.O_RDONLY, 0))
        self._placing = [libc.prepare("dup3", number, place, 0 if place <= 2 else os.O_CLOEXEC)
                         for number, place in zip(self._numbers, PLACES, strict=True)]

    def expect(self, lent: list[int]) -> None:
        """In the zygote: the descriptors of the next one, in the order of PLACES, and a ruleset where Landlock is on."""
        if lent != self._lent:  # a zygote meets the same numbers each time, and writes to no page
            self._lent = lent
            for number, fd in zip(self._numbers, lent, strict=False):
                number.value = fd
            if self._confinement is not None:
                self._confinement.expect(lent[-1] if len(lent) == LENT else -1)

    def live(self) -> NoReturn:
        """In the new process: serve until the supervisor hangs up."""
        code = 70
        try:
            if libc.issue(self._stdin) != 0:  # the lowest number that is free
                raise OSError(EBADF, "standard input was closed before the worker began")
            libc.issue(self._placing)
            if self._confinement is not None:
                self._confinement.enter()
            for fd in self._lent:
                os.close(fd)
            self._go_on()
            code = 0
        except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
            os.write(2, ("worker could not start: " + traceback.format_exc()[-REPORT_BYTES:]).encode())
        finally:
            os._exit(code)  # whatever came: nobody else's code goes on in this process


def serving(limits: dict[str, Any], channel: Channel | None = None, *, warm: bool = False) -> Callable[[], None]:
    """The rest of a worker's life on `channel`, or in PLACES, prepared. `warm`: it is parked, and rehearses its first call."""
    channel = channel or Channel(REQUESTS, ANSWERS, GREETING, limits["busy_polling"])
    settle = partial(_settle, rehearsal(channel, current)) if warm else _settle
    return prepare(channel, current, request_limit=limits["request"],
                   response_limit=limits["response"], settle=settle)


def _settle(rehearse: Callable[[], None] | None = None) -> None:
    reseed()
    gc.enable()
    if rehearse is not None:
        rehearse()


def keep_places() -> None:
    """In the zygote, before the script runs: what it opens goes elsewhere."""
    for place in (REQUESTS, GREETING, ARENA_REQUESTS, ARENA_ANSWERS):
        os.dup2(0, place, inheritable=False)


def keep_stdin() -> None:
    """In the zygote, after the script ran: a number 0 that a worker can close."""
    null = os.open("/dev/null", os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)


def rehearse(limits: dict[str, Any], confinement: Confinement) -> None:
    """Run the steps of a start in the zygote, without effect: `serve` meets a supervisor that has nothing to say."""
    one_thread.nothing_to_do = one_thread.is_alone()
    try:
        confinement.rehearse()
        for _ in range(REHEARSALS):  # on the places that are kept, which lead to /dev/null: strict opens no file for writing
            serving(limits, Channel(REQUESTS, GREETING, os.dup(GREETING)))()
    except OSError as error:  # the script left no descriptors: a slower start is all that follows
        os.write(2, f"a worker's start cannot be rehearsed, so starts are slower: {error}\n".encode())
