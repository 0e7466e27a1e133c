"""One worker's channel, the supervisor's side: two pipes for calls, a socket on which the worker introduces itself, and the arenas
for large values (`arena`).

    supervisor                                          worker
       | <----- greeting (socket): ready, with the kernel's word on who sent it; closed after it
       | ------ requests (pipe): request, cancellation, credit -----------> |
       | <----- answers (pipe): part, success, failure -------------------- |

Pipes and not a socket pair (ADR 0006): the kernel carries a small message through them in 0.6 of the time, and they carry
bytes only, so that no descriptor can be sent over them. What a socket pair would give is made up for here:

* A write to a dead worker would be SIGPIPE: the reading end of requests stays open here, so that the pipe never breaks.
* Nobody's wait can be ended from outside, as shutdown(2) would. The kernel ends a read with the last writer; a wait for room,
  and a read while something that the worker left behind holds its end, are ended by `release`: it makes room, and writes a
  byte that is no answer. Both sides look whether the worker has `ended` before they wait, and that is said first.

With `ahead` calls are sent before the worker has answered those before them (ADR 0020). Each request is a packet then, which one
read takes as a whole and alone: what the worker has not read is `taken_back`, and the kernel says of each request which of the two
has it. There are no arenas then: one holds the values of one call.

Who uses a channel closes it, under the lock of its worker, or drops it: it closes itself when nobody holds it any more. Its
numbers are -1 then, and never another file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
from collections.abc import Callable
from time import monotonic

from pyproc.link.arena import Arena
from pyproc_wire import polling
from pyproc_wire.limits import RECV_BYTES, REQUEST_BYTES, RESPONSE_BYTES

KINDS = ("pipe", "pipe", "socket")  # of `inner`, as /proc names them
NO_ANSWER = b"\xff"  # of a length beyond every limit
WHOLE_BYTES = select.PIPE_BUF  # a write of at most so many is done as a whole, or not at all; the longest packet
PIPE_PACKETS = 16  # that a pipe holds, unless it is made larger


class Channel:
    """`ahead`: requests that may wait in the pipe. `requests` never waits, `answers` does unless `set_waiting` says otherwise;
    `sending`: a frame is perhaps only partly sent, and nothing else may be written, as it would be taken for the rest. Raises OSError
    when no descriptor is left."""

    __slots__ = ("__weakref__", "_busy", "_inner", "_reader", "answers", "arena", "greeting", "links", "lively", "requests", "sending",
                 "waits")

    def __init__(self, request: int = REQUEST_BYTES, response: int = RESPONSE_BYTES, ahead: int = 0, busy: float = 0.0) -> None:
        self.requests = self.answers = self._reader = -1
        self._inner: list[int] = []
        self.waits = True
        self._busy = busy
        self.lively = busy > 0
        self.sending = False
        self.greeting, greeting = socket.socketpair()
        self._inner.append(greeting.detach())
        requests, self.requests = os.pipe2(os.O_CLOEXEC | os.O_DIRECT) if ahead else os.pipe()
        self._inner.append(requests)
        if ahead:  # an open file of its own, as the flags of the worker's are shared with it
            self._reader = os.open(f"/proc/self/fd/{requests}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if ahead > PIPE_PACKETS:
            with contextlib.suppress(OSError):  # the user's share is used up: fewer are sent ahead
                fcntl.fcntl(self.requests, fcntl.F_SETPIPE_SZ, ahead * WHOLE_BYTES)
        self.answers, answers = os.pipe()
        self._inner.append(answers)
        self.arena = Arena(request, response, wanted=not ahead)
        self.links = tuple(f"{kind}:[{os.fstat(fd).st_ino}]" for kind, fd in zip(KINDS, self.inner, strict=True)) + self.arena.links
        os.set_blocking(self.requests, False)
        self.greeting.setblocking(False)

    @property
    def inner(self) -> tuple[int, int, int]:
        """The worker's ends: answers, requests, greeting."""
        greeting, requests, answers = self._inner
        return answers, requests, greeting

    def handed_over(self) -> None:
        """The worker has its ends: close ours of them, but for the one that keeps the pipe whole."""
        if len(self._inner) == 3:
            greeting, requests, answers = self._inner
            self._inner = [requests]
            os.close(greeting)
            os.close(answers)
            self.arena.handed_over()

    def set_waiting(self, *, waits: bool) -> None:
        """Whether `receive` waits, as a thread wants it, or raises BlockingIOError, for an event loop."""
        os.set_blocking(self.answers, waits)
        self.waits = waits

    def send(self, frame: bytes, ended: Callable[[], bool]) -> None:
        """Send a frame, waiting for room. Raises OSError when the worker has `ended`; `sending` stays set by whatever is raised."""
        view, sent = memoryview(frame), 0
        self.sending = True
        while sent < len(frame):
            try:
                sent += os.write(self.requests, view[sent:])
            except BlockingIOError:
                if ended():
                    raise _over() from None
                poll = select.poll()
                poll.register(self.requests, select.POLLOUT)
                poll.poll()
        self.sending = False

    def look_out(self) -> None:
        """Poll for an answer for a while, as `polling` says; `lively` after it: whether to do so again."""
        poll = select.poll()
        poll.register(self.answers, select.POLLIN)
        if self._busy:
            polling.busily(poll.poll, os.sched_yield, monotonic, self._busy)
        else:
            self.lively = polling.look_out(poll.poll, os.sched_yield)

    def may_look_out(self, *, alone: bool) -> None:
        """Have the next call look out; where the interpreter has other threads to run, the caller is not `alone`."""
        self.lively = alone or self._busy > 0

    def receive(self, ended: Callable[[], bool]) -> bytes:
        """What has arrived, at least a byte; b"" when nobody holds the worker's end. Raises OSError, as when the worker has
        `ended` and nothing of it is left."""
        if ended() and not self._state(select.POLLIN):
            raise _over()
        return os.read(self.answers, RECV_BYTES)

    def taken_back(self) -> list[bytes]:
        """The requests that the worker had not read, which it will not read any more: each a frame, where `ahead` was given."""
        taken: list[bytes] = []
        with contextlib.suppress(OSError):  # it is empty, or closed
            while frame := os.read(self._reader, WHOLE_BYTES):
                taken.append(frame)
        return taken

    @property
    def hung_up(self) -> bool:
        """Whether nobody holds the worker's end any more, so that each read ends."""
        return bool(self._state(0) & select.POLLHUP)

    def _state(self, events: int) -> int:
        if self.answers < 0:
            return 0
        poll = select.poll()
        poll.register(self.answers, events)
        return sum(found for _, found in poll.poll(0))

    def release(self) -> bool:
        """The worker is dead: make who still waits for it go on. Whether the channel is still in use."""
        if self.answers < 0:
            return False
        with contextlib.suppress(OSError):  # no descriptor is left: it is tried again
            _anew(self._inner[-1], os.O_RDONLY)
            if not self.hung_up:
                _anew(self.answers, os.O_WRONLY)
        return True

    def close(self) -> None:
        """Give back every descriptor."""
        self.greeting.close()
        if hasattr(self, "arena"):
            self.arena.close()
        closing, self._inner = [*self._inner, self.requests, self.answers, self._reader], []
        self.requests = self.answers = self._reader = -1
        for fd in closing:
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "greeting"):  # else nothing was opened
            self.close()


def _anew(fd: int, mode: int) -> None:
    """Make room in the pipe of `fd`, or put NO_ANSWER into it, through an open file of its own: the flags of `fd` itself, O_NONBLOCK
    too, are shared with the inside, which may change them."""
    own = os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if mode == os.O_RDONLY:
            os.read(own, RECV_BYTES)
        else:
            os.write(own, NO_ANSWER)
    except BlockingIOError:
        pass  # nothing to read, or no room: then there is something to read
    finally:
        os.close(own)


def _over() -> BrokenPipeError:
    return BrokenPipeError(errno.EPIPE, "the worker ended")
