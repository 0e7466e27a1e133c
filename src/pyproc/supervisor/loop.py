"""The supervision thread's loop: descriptors, timers and orders, one at a time. Knows nothing of workers.

Rules:
* `order` and `poke` may be called from any thread, everything else from the loop's own (or before it runs).
* An action must not wait: what is not there yet is looked at again by a timer.
* A descriptor is unwatched before it is closed. An action may unwatch any other one; what was reported for it in the same
  turn is then dropped.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import select
import time
from collections import deque
from collections.abc import Callable

Action = Callable[[], None]
SLACK_SECONDS = 0.0005  # epoll counts in milliseconds and rounds down: better late than twice


class Timer:
    """An action that is due once; `cancel` lets go of it."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """epoll with timers, and a door for other threads."""

    def __init__(self) -> None:
        self._actions: dict[int, Action] = {}
        self._orders: deque[Action] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()  # between timers of the same time, the one made first
        self._poked = False
        self._epoll = select.epoll()
        try:
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._epoll.close()
            raise
        self.watch(self._eventfd, self._woken)

    def watch(self, fd: int, action: Action, *, room: bool = False) -> None:
        """Call `action` whenever `fd` can be read, or written where `room` is asked for, or has ended."""
        self._epoll.register(fd, select.EPOLLOUT if room else select.EPOLLIN)
        self._actions[fd] = action

    def unwatch(self, fd: int) -> None:
        """Stop watching; a descriptor that is not watched is no error."""
        if self._actions.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)

    def later(self, seconds: float, action: Action) -> Timer:
        """Call `action` in `seconds`, unless it is cancelled."""
        timer = Timer(action)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def order(self, action: Action) -> None:
        """Call `action` soon. From any thread."""
        self._orders.append(action)
        self.poke()

    def poke(self) -> None:
        """End the present wait. From any thread."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._eventfd, 1)

    def turn(self, until: float) -> bool:
        """Wait for a descriptor, a timer or `until` on time.monotonic(), and act; True if somebody poked."""
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if self._timers:
            until = min(until, self._timers[0][0])
        timeout = -1.0 if until == math.inf else max(0.0, until - time.monotonic()) + SLACK_SECONDS
        self._poked = False
        for fd, _ in self._epoll.poll(timeout):
            action = self._actions.get(fd)
            if action is not None:
                action()
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due = heapq.heappop(self._timers)[2].action
                if due is not None:
                    due()
        return self._poked

    def close(self) -> None:
        """Give the descriptors back; nothing is called any more."""
        self._actions.clear()
        self._timers.clear()
        eventfd, self._eventfd = self._eventfd, -1  # whoever pokes later meets no other file
        with contextlib.suppress(OSError):
            os.close(eventfd)
        self._epoll.close()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        self._poked = True
        while self._orders:
            self._orders.popleft()()
