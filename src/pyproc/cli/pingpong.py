"""The floor under a call's latency: two Python processes and a blocking unix socket, nothing else.

Rules: no timeout on the socket, one `sendall` and one `recv` of at most 64 KiB for each direction, the same bytes as the
call it is compared with. The peer runs isolated and without site packages, so that nothing but the loop is in it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from types import TracebackType

RECV_BYTES = 65536
PEER = """
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
answer = bytes.fromhex(sys.argv[2])
receive, send = channel.recv, channel.sendall
while receive(65536):
    send(answer)
"""


class PingPong:
    """A peer process that answers each message with `answer`."""

    def __init__(self, request: bytes, answer: bytes) -> None:
        self._request = request
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._peer = subprocess.Popen([sys.executable, "-I", "-S", "-c", PEER, str(theirs.fileno()), answer.hex()],
                                          pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, process_group=0)  # Ctrl-C is ours
        self.measure(1)  # the peer is up once it has answered

    def measure(self, count: int) -> list[int]:
        """Nanoseconds of each of `count` round trips."""
        send, receive, clock, request = self._socket.sendall, self._socket.recv, time.perf_counter_ns, self._request
        taken = []
        for _ in range(count):
            begin = clock()
            send(request)
            receive(RECV_BYTES)
            taken.append(clock() - begin)
        return taken

    def __enter__(self) -> PingPong:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._socket.close()
        self._peer.wait(10)
