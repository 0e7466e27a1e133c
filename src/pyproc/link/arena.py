"""The two arenas of one worker, the supervisor's side: memory for large values beside the pipes.

    requests   we write, the worker maps it for reading: it can change nothing that a caller has built or sent
    answers    the worker writes; we map it privately, and copy what is kept

Each is as large as the limit of what it carries, so that one message always finds room, and its size is sealed. A file that
nobody has written takes no memory. Where the system refuses either of them there is none, and every value goes through the pipes.
"""

from __future__ import annotations

import errno
import os

from pyproc.host import memfd, procfs
from pyproc_wire.arena import Receiver, Sender

NOTHING_LEFT = (errno.EMFILE, errno.ENFILE)  # a reason to start no worker, as for the pipes
PAGE = 4096  # bytes
NAMES = ("pyproc-requests", "pyproc-answers")


class Arena:
    """Of at most `request` and `response` bytes a message. `inner` are the worker's descriptors: requests, answers. Raises OSError
    when no descriptor is left."""

    __slots__ = ("_answers", "_inner", "_mapping", "_size", "receiver", "sender")

    def __init__(self, request: int, response: int) -> None:
        self._answers = -1
        self._inner: tuple[int, ...] = ()
        self._mapping: memfd.Mapping | None = None
        self._size = _whole_pages(response)
        self.sender = Sender(lambda: self._mapping)
        self.receiver = Receiver(self._map_answers, response, views=False)
        requests = -1
        try:
            requests = memfd.make(NAMES[0], _whole_pages(request))
            mapping = memfd.Mapping(requests, _whole_pages(request), shared=True)
            memfd.seal(requests, only_we_write=True)
            self._answers = memfd.make(NAMES[1], self._size)
            memfd.seal(self._answers, only_we_write=False)
        except OSError as error:
            _close(requests)
            self.close()
            if error.errno in NOTHING_LEFT:
                raise
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._inner = (null, null)
            return
        self._mapping = mapping
        self._inner = (requests, self._answers)

    @property
    def inner(self) -> tuple[int, ...]:
        """The worker's ends."""
        return self._inner

    @property
    def links(self) -> tuple[str, ...]:
        """How /proc shows `inner`."""
        if not self.there:
            return (os.devnull,) * 2
        return tuple(procfs.memfd_link(f"/memfd:{name} (deleted)", os.fstat(fd).st_ino)
                     for name, fd in zip(NAMES, self._inner, strict=True))

    @property
    def there(self) -> bool:
        """Whether the system granted it."""
        return self._mapping is not None

    def handed_over(self) -> None:
        """The worker has its ends."""
        if self._inner:
            _close(self._inner[0])
            self._inner = ()

    def close(self) -> None:
        """Give back the descriptors; what lies in a mapping stays as long as it is held."""
        self.handed_over()
        answers, self._answers = self._answers, -1
        _close(answers)

    def _map_answers(self) -> memfd.Mapping | None:
        return memfd.Mapping(self._answers, self._size, shared=False) if self._answers >= 0 else None


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
