"""One worker's channel, the supervisor's side: two pipes for calls, and a socket on which the worker introduces itself.

    supervisor                                          worker
       | <----- greeting (socket): ready, with the kernel's word on who sent it; closed after it
       | ------ requests (pipe): request, cancellation, credit -----------> |
       | <----- answers (pipe): part, success, failure -------------------- |

Pipes and not a socket pair: the kernel carries a small message through them in 0.6 of the time, and they carry bytes only, so
that no descriptor can be sent over them. What a socket pair would give is made up for here:

* Nobody can end a read from outside, as shutdown(2) would. The kernel does, when the last writer is gone; `hung_up` says
  whether it is, and the supervisor ends whoever keeps a dead worker's end.
* A write to a worker that died would be SIGPIPE, and one to a worker that does not read would wait for ever: the reading end
  of requests stays open here, so that the pipe never breaks, and `drain` lets a blocked writer go.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket

from pyproc_wire.limits import RECV_BYTES


class Channel:
    """Our ends of it. A FileIO refuses a closed descriptor, where a number may belong to something else meanwhile.

    `blocking`: whether `send` and `receive` wait, as a thread wants it, or raise BlockingIOError, for an event loop.
    """

    __slots__ = ("_answers", "_inner", "_read", "_requests", "_write", "greeting", "inner_names")

    def __init__(self, *, blocking: bool) -> None:
        inner_requests, requests = os.pipe2(os.O_CLOEXEC)
        answers, inner_answers = os.pipe2(os.O_CLOEXEC)
        self.greeting, inner_greeting = socket.socketpair()
        self._inner = [inner_requests, inner_answers, inner_greeting.detach()]
        self.inner_names = tuple(os.readlink(f"/proc/self/fd/{fd}") for fd in self._inner)
        self._requests = io.FileIO(requests, "w")
        self._answers = io.FileIO(answers, "r")
        self._write, self._read = self._requests.write, self._answers.read
        self.set_blocking(blocking=blocking)

    @property
    def inner(self) -> tuple[int, ...]:
        """The worker's ends: requests, answers, greeting."""
        return tuple(self._inner)

    def handed_over(self) -> None:
        """The worker has its ends: close ours of them, but for the one that keeps the pipe whole."""
        for fd in self._inner[1:]:
            os.close(fd)
        del self._inner[1:]

    @property
    def requests(self) -> int:
        """The descriptor to watch for room. Raises OSError once it is closed."""
        return _fileno(self._requests)

    @property
    def answers(self) -> int:
        """The descriptor to watch for answers. Raises OSError once it is closed."""
        return _fileno(self._answers)

    def set_blocking(self, *, blocking: bool) -> None:
        """Whether `send` and `receive` wait."""
        os.set_blocking(self.requests, blocking)
        os.set_blocking(self.answers, blocking)

    def send(self, frame: bytes) -> None:
        """Send a frame, waiting for room. Raises OSError."""
        try:
            sent = self._write(frame)
            while sent != len(frame):
                frame = frame[sent:]
                sent = self._write(frame)
        except ValueError as error:
            raise _closed() from error

    def offer(self, frame: bytes) -> int:
        """Send what there is room for, without waiting: how many bytes that was. All or none of at most PIPE_BUF bytes.
        Raises OSError."""
        try:
            return self._write(frame) or 0
        except ValueError as error:
            raise _closed() from error

    def receive(self) -> bytes:
        """What has arrived, at least a byte; b"" when nobody holds the worker's end. Raises OSError."""
        try:
            data = self._read(RECV_BYTES)
        except ValueError as error:
            raise _closed() from error
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "nothing has arrived")
        return data

    @property
    def hung_up(self) -> bool:
        """Whether nobody holds the worker's end any more, so that each read ends."""
        if self._answers.closed:
            return True
        poll = select.poll()
        poll.register(self._answers, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def drain(self) -> None:
        """Throw away requests that the worker has not read: it is dead, and who waits for room gets some."""
        if self._inner:
            os.set_blocking(self._inner[0], False)
            try:
                while os.read(self._inner[0], RECV_BYTES):
                    pass
            except BlockingIOError:
                pass

    def close(self) -> None:
        """Give back every descriptor."""
        self.greeting.close()
        self._requests.close()
        self._answers.close()
        while self._inner:
            os.close(self._inner.pop())


def _fileno(file: io.FileIO) -> int:
    try:
        return file.fileno()
    except ValueError as error:
        raise _closed() from error


def _closed() -> OSError:
    return OSError(errno.EBADF, "the channel is closed")
