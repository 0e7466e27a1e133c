"""The two arenas of one worker, the supervisor's side: memory for large values beside the pipes.

    requests   we write, the worker maps it for reading: it can change nothing that a caller has built or sent
    answers    the worker writes; we map it privately, and copy what is kept

Their names are random: how /proc shows a worker's descriptors is compared, and a memfd of its own is not taken for one of them.
Each is at least as large as the limit of what it carries, so that one message finds room, and its size is sealed. A file that
nobody has written takes no memory. Where the system refuses either of them, or none is wanted, there is none, and every value goes
through the pipes.
"""

from __future__ import annotations

import errno
import os

from pyproc.host import memfd
from pyproc_wire.arena import Receiver, Sender, answers_size, requests_size

NOTHING_LEFT = (errno.EMFILE, errno.ENFILE)  # a reason to start no worker, as for the pipes


class Arena:
    """Of at most `request` and `response` bytes a message. `inner` are the worker's descriptors: requests, answers. Raises OSError
    when no descriptor is left."""

    __slots__ = ("_answers", "_inner", "_links", "_mapping", "_size", "receiver", "sender")

    def __init__(self, request: int, response: int, *, wanted: bool = True) -> None:
        self._answers = -1
        self._inner: tuple[int, ...] = ()
        self._mapping: memfd.Mapping | None = None
        self._size, size = answers_size(response), requests_size(request)
        self.sender = Sender(lambda: self._mapping, lowest=size // 2)
        self.receiver = Receiver(self._map_answers, response, views=False)
        if not wanted:
            self._none()
            return
        requests, name = -1, os.urandom(8).hex()
        self._links = (f"/memfd:requests-{name} (deleted)", f"/memfd:answers-{name} (deleted)")
        try:
            requests = memfd.make(f"requests-{name}", size)
            mapping = memfd.Mapping(requests, size, shared=True)
            memfd.seal(requests, only_we_write=True)
            self._answers = memfd.make(f"answers-{name}", self._size)
            memfd.seal(self._answers, only_we_write=False)
        except OSError as error:
            _close(requests)
            self.close()
            if error.errno in NOTHING_LEFT:
                raise
            self._none()
            return
        self._mapping = mapping
        self._inner = (requests, self._answers)

    def _none(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._inner = (null, null)
        self._links = (os.devnull, os.devnull)

    @property
    def inner(self) -> tuple[int, ...]:
        """The worker's ends."""
        return self._inner

    @property
    def links(self) -> tuple[str, ...]:
        """How /proc shows `inner`."""
        return self._links

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


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
