"""`run_worker()`: the exposed functions served on a unix socket, without a supervisor (contract, section 7).

    client -- connect --> accept loop (main thread) -- a thread for each connection --> one function at a time

Rules: functions run one at a time, under one lock, as they do in a pool, so that a script needs no locks of its own; a
thread serves each connection, so that a slow client holds up nobody. There is no sandbox here and no kill: a deadline
is checked before a call begins and by `check_cancelled`. The socket belongs to its owner alone (0600 from the first
moment, by the umask); who may connect is decided by that.

The zygote sets SUPERVISED before it loads the script: `run_worker()` at its end then returns at once.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import stat
import sys
import threading
import time
from typing import Any

SUPERVISED = False
CONNECTIONS_MAX = 256  # each has a thread; one more is hung up on
BACKLOG = 128
LOCK_POLL_SECONDS = 0.05  # how soon a call that waits for its turn hears of its cancellation
GRACE_SECONDS = 5.0  # after SIGTERM, for the calls under way
PATH_BYTES_MAX = 107  # sun_path without its final zero
CODECS = ("auto", "json", "msgpack")
LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def run_worker(socket_path: str | None = None, codec_type: str = "auto") -> None:
    """Serve until SIGTERM or SIGINT. Raises ValueError for a wrong setting, OSError where the socket cannot be made."""
    if SUPERVISED:
        return
    path = socket_path or os.environ.get("PYPROC_SOCKET_PATH", "")
    codec = codec_type if codec_type != "auto" else os.environ.get("PYPROC_CODEC_TYPE") or "auto"
    level = (os.environ.get("PYPROC_LOG_LEVEL") or "error").lower()
    if not path:
        raise ValueError("no socket path: give run_worker(socket_path=…) or set PYPROC_SOCKET_PATH")
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise ValueError(f"socket path {path!r} is longer than {PATH_BYTES_MAX} bytes; use a shorter one")
    if codec not in CODECS:
        raise ValueError(f"codec type is {codec!r}; write {', '.join(CODECS)}")
    if level not in LOG_LEVELS:
        raise ValueError(f"PYPROC_LOG_LEVEL is {level!r}; write {', '.join(LOG_LEVELS)}")
    from pyproc_worker import registry, standalone_connection

    registry.current.freeze()
    standalone_connection.LEVEL = LOG_LEVELS[level]
    listener = _listen(path)
    try:
        made = os.stat(path)
        _Door(listener, codec, standalone_connection).run()
    finally:
        listener.close()
        _remove(path, made)
