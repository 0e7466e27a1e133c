"""From the fork to `ready`: what a new process does before it serves, and its rehearsal in the zygote.

    descriptors 0-3 -> own user namespace, no capabilities, Landlock, filter (`jail.worker`) -> fresh randomness -> the prepared `serve`

A page that is written after a fork is copied first, at 1 to 4 microseconds: not the work itself but the count of pages that it
touches is what a start costs. So nothing is imported, converted or made here that can be made before, and the zygote runs
the same code beforehand: a first run binds symbols, fills caches and specialises code, all by writing.
"""

from __future__ import annotations

import gc
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from pyproc_worker import one_thread
from pyproc_worker.entropy import reseed
from pyproc_worker.jail.worker import LENT, REHEARSALS, Confinement
from pyproc_worker.loop import prepare
from pyproc_worker.registry import current

CHANNEL = 3
TARGETS = (0, 1, 2, CHANNEL)
REPORT_BYTES = 65536
REHEARSED_BYTES = 65536  # a longer `ready` could fill the socket that nobody reads in a rehearsal


def become_worker(go_on: Callable[[], None], confinement: Confinement | None, fds: list[int]) -> NoReturn:
    """Serve on the lent `fds` until the supervisor hangs up; `go_on` was prepared for descriptor 3, the worker's own from now."""
    code = 70
    try:
        null = _take(fds, TARGETS)
        if confinement is not None:
            confinement.enter(fds[3] if len(fds) == LENT else -1)
        os.close(null)
        for fd in fds:
            os.close(fd)
        reseed()
        gc.enable()
        go_on()
        code = 0
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        os.write(2, ("worker could not start: " + traceback.format_exc()[-REPORT_BYTES:]).encode())
    os._exit(code)


def serving(channel: socket.socket, limits: dict[str, int]) -> Callable[[], None]:
    """The rest of a worker's life on `channel`, prepared."""
    return prepare(channel, current, request_limit=limits["request"], response_limit=limits["response"], details={})


def _take(fds: Sequence[int], targets: tuple[int, int, int, int]) -> int:
    """Put /dev/null, stdout, stderr and the channel to their places; the spare descriptor of /dev/null."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, targets[0])
    os.dup2(fds[1], targets[1])
    os.dup2(fds[2], targets[2])
    os.dup2(fds[0], targets[3])
    return null


def rehearse(limits: dict[str, int], confinement: Confinement, ready_bytes: int) -> None:
    """Run the steps of a start in the zygote, without effect: `serve` meets a supervisor that has nothing to say."""
    one_thread.nothing_to_do = one_thread.is_alone()
    try:
        confinement.rehearse()
        for _ in range(REHEARSALS):
            null = os.open("/dev/null", os.O_RDONLY)
            os.close(_take((CHANNEL, 1, 2), (null, 1, 2, CHANNEL)))
            os.close(null)
            reseed()  # each worker does it again
            if ready_bytes > REHEARSED_BYTES:
                continue
            ours, theirs = socket.socketpair()
            with ours, theirs:
                theirs.shutdown(socket.SHUT_WR)
                serving(ours, limits)()
    except OSError:
        pass  # the script left no descriptors: a slower start is all that follows
