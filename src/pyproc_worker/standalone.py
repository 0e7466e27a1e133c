"""A worker without a supervisor: serves its functions on a socket of its own, for development and for other languages.

There is no sandbox around it and nobody to end a call: deadlines and cancellations are answered on time, but the
function itself stops only if it looks (`check_cancelled`, `cancel_event`, `await`). Functions run one at a time, in the
main thread and in the order of arrival, because that is what they can rely on under a supervisor; `health` is answered
meanwhile. Connections, deadlines and slow readers are `session` and
`server`'s business, in a thread of its own.

    main thread                      session thread                clients
       |                                | <---- connect, requests ----- |
       | <---- calls, in order -------- |                               |
       | ----- answers ---------------------------------------------->  |
       | <---- stop (SIGTERM, SIGINT)   |                               |
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from pyproc_wire.codec import Codec
    from pyproc_worker.server import Server

SUPERVISED = False
"""Set by who serves the script's functions itself: then `run_worker` only notes what it was asked for."""

asked: tuple[str | None, str] = (None, "auto")
"""The arguments of a `run_worker` that was not to serve."""

CODECS: Final = ("auto", "json", "msgpack")
LEVELS: Final = ("debug", "info", "warning", "error")

BACKLOG: Final = 128
"""Connections that wait to be accepted; the kernel's own bound is 4096."""

EXIT_CONFIG: Final = 78
"""Contract section 4: refused to start."""

NO_SOCKET: Final = ("no socket to serve on: set PYPROC_SOCKET_PATH, pass socket_path to run_worker(), or serve the script by "
                    "`pyproc-worker FILE --socket-path P`; `pyproc call --worker FILE METHOD` needs none")

PATH_BYTES: Final = 107
"""Bytes of a socket's path: sun_path of unix(7) without its final zero."""


def run_worker(socket_path: str | None = None, codec_type: str = "auto") -> None:
    """Serve the exposed functions until SIGTERM or SIGINT; under a supervisor, return at once.

    `socket_path` defaults to the environment's PYPROC_SOCKET_PATH, `codec_type` ("auto", "json" or "msgpack") to
    PYPROC_CODEC_TYPE; PYPROC_LOG_LEVEL is one of debug, info, warning, error. The socket is made with mode 0600 and
    removed at the end. Where no socket is named it says so and ends the program with 78. Raises ValueError for a wrong
    setting, OSError where no socket can be made, TypeError for a
    function whose annotations do not hold.
    """
    if SUPERVISED:
        global asked
        asked = (socket_path, codec_type)
        return
    if not (socket_path or os.environ.get("PYPROC_SOCKET_PATH")):
        sys.stderr.write(f"{sys.argv[0] or 'worker'}: {NO_SOCKET}\n")
        sys.exit(EXIT_CONFIG)
    serve(socket_path, codec_type)


def serve(socket_path: str | None = None, codec_type: str = "auto") -> None:
    """What `run_worker` does where no supervisor is."""
    path = socket_path or os.environ.get("PYPROC_SOCKET_PATH", "")
    if not path:
        raise ValueError(NO_SOCKET)
    codec = _codec(codec_type if codec_type != "auto" else os.environ.get("PYPROC_CODEC_TYPE", "auto"))
    level = os.environ.get("PYPROC_LOG_LEVEL", "warning").lower()
    if level not in LEVELS:
        raise ValueError(f"log level is {level!r}, possible are {', '.join(LEVELS)}")
    import signal

    from pyproc_worker import registry, server

    registry.current.freeze()
    # whoever sees the socket may stop us, and finds the handlers: until they are there the signals wait
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with ExitStack() as undo:
        try:
            listener = undo.enter_context(listen(path))
            withdraw = partial(_withdraw, path, _identity(path))
            undo.callback(withdraw)
            serving = server.Server(listener, registry.current, codec, server.Log(level), withdraw)
            undo.callback(serving.close)
            undo.callback(_stop_on_signals(serving))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        serving.run()


def _withdraw(path: str, identity: tuple[int, int] | None) -> None:
    """Remove our socket, and not one that another worker has put there meanwhile."""
    if identity is not None and _identity(path) == identity:
        os.unlink(path)


def _codec(name: str) -> Codec | None:
    from pyproc_wire.codec import JSON, MESSAGEPACK

    known: dict[str, Codec | None] = {"auto": None, "json": JSON, "msgpack": MESSAGEPACK}
    if name not in known:
        raise ValueError(f"codec type is {name!r}, possible are {', '.join(CODECS)}")
    return known[name]


def listen(path: str) -> socket:
    """A listening socket at `path`, mode 0600 from its first moment. Raises OSError that says what stands in the way."""
    import socket

    if len(os.fsencode(path)) > PATH_BYTES:
        raise ValueError(f"socket path is {len(os.fsencode(path))} bytes, limit is {PATH_BYTES}; choose a shorter one")
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        if stat.S_IMODE(os.stat(path, follow_symlinks=False).st_mode) != 0o600:
            os.unlink(path)
            raise PermissionError(errno.EPERM, "file system does not keep mode 0600 of a socket; use another", path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.filename is not None:
            raise
        raise OSError(error.errno, f"socket cannot be made, check its folder: {error.strerror}", path) from error
    return listener


def _clear(path: str) -> None:
    """Remove a socket of ours that nobody serves any more. Raises FileExistsError for anything else that is there."""
    import socket

    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise FileExistsError(errno.EEXIST, "what is there is not our socket; remove it or choose another path", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens, with a full backlog
    raise FileExistsError(errno.EEXIST, "another worker serves there; end it or choose another path", path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _stop_on_signals(server: Server) -> Callable[[], None]:
    """Let SIGTERM and SIGINT stop the server; returns what undoes it. Outside the main thread nothing is changed."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]  # the descriptor says it
    descriptor = signal.set_wakeup_fd(server.signals, warn_on_full_buffer=False)

    def restore() -> None:
        signal.set_wakeup_fd(descriptor)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    return restore
