"""How an event loop hears of a worker's answers: it is told once of each worker, and not once a call."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial

from pyproc.supervisor.state import Worker


class Ear:
    """Hears a worker's answers in one event loop. It has a descriptor of its own: the channel's may be closed, and its number taken
    again, by another thread while the loop polls for it."""

    __slots__ = ("_fd", "_listener", "_polled", "_thread", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        self.loop = loop
        self._thread = threading.get_ident()
        self._listener: Callable[[], None] | None = None
        self._polled = False
        self._fd = os.dup(worker.channel.answers)

    async def listen(self) -> None:
        """Return when there is something to receive, or nothing will come any more."""
        heard: asyncio.Future[None] = self.loop.create_future()
        self.attend(partial(settle, heard))
        try:
            await heard
        finally:
            self.ignore()

    def attend(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, in the loop, whenever there is something to receive, or nothing will come any more."""
        self._listener = listener
        if not self._polled:
            self.loop.add_reader(self._fd, self._hear)
            self._polled = True

    @property
    def deaf(self) -> bool:
        """Whether nobody listens, or would be told."""
        return self._listener is None or not self._polled

    @property
    def closed(self) -> bool:
        """Whether it hears nothing any more."""
        return self._fd < 0

    def ignore(self) -> None:
        """Nobody listens any more."""
        self._listener = None

    def _hear(self) -> None:
        if self.closed:  # from another thread, whose word to the loop is on its way
            return
        if self._listener is not None:
            self._listener()
        if self._listener is None:  # nobody listens: it would be told again and again
            self.loop.remove_reader(self._fd)
            self._polled = False

    def forget(self) -> None:
        """In a forked child: the loop is the parent's."""
        if not self.closed:
            os.close(self._fd)
        self._fd, self._polled = -1, False

    def close(self) -> None:
        """From any thread."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if not self._polled or self.loop.is_closed():
            os.close(fd)
        elif threading.get_ident() == self._thread:
            _deafen(self.loop, fd)
        else:
            try:
                self.loop.call_soon_threadsafe(_deafen, self.loop, fd)
            except RuntimeError:  # it was closed meanwhile
                os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):  # else nothing was opened
            self.close()


def _deafen(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    loop.remove_reader(fd)
    os.close(fd)


def settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
