"""The zygote: imports the user's script inside the finished sandbox and forks workers; it never serves a call.

Everything from here on may be the attacker's: the walls stand (`jail.apply`). Fork, the worker's own user namespace,
its second Landlock domain and its final filter are decided by the supervisor through seccomp user notification, one by
one and only for the child of a fork that it asked for; import-time code that tries them is refused.

    supervisor                                         zygote                             worker
       | control: "F" + descriptors (`newborn`) -----> | fork (notified) ----------------> | private descriptors
       |                                                |                                   | confine (notified steps)
       | <--- greeting: ready, with the kernel's credentials and pidfd of the sender --------- | serve

SIGCHLD is ignored, so the kernel reaps at once and keeps the exit status for the supervisor's pidfd. A kernel that keeps none of the
reaped (plan, `keeps_the_dead`) is asked of the zombie, until the supervisor says "R" and the worker's pid in here.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
import sys
import traceback
import types
from typing import Any

from pyproc_worker import one_thread  # noqa: F401 - before anything that imports threading
from pyproc_worker.control import send_frame
from pyproc_worker.jail.worker import LENT, Confinement

REPORT_BYTES = 65536


def run(plan: dict[str, Any], listener: int, control: socket.socket, confinement: Confinement | None) -> None:
    """Hand the listener over, import the script, then fork on demand until the supervisor hangs up.

    Without a `confinement` there is no fork: the first request makes this process the worker.
    """
    send_frame(control, {"listener": listener})
    if control.recv(1) != b"L":
        os._exit(0)
    if listener:
        os.close(listener)
    limits = plan["limits"]
    try:
        _extend_path(plan)
        # what a worker needs is loaded here, once: an import in each worker cost 15 ms of its start
        from pyproc_worker.newborn import Newborn, keep_places, keep_stdin, rehearse, serving

        keep_places()
        _load(plan)
        if confinement is not None:
            rehearse(limits, confinement)
        keep_stdin()
        newborn = Newborn(serving(limits, warm=plan["warm"]), confinement)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        text = "".join(traceback.format_exception(error))[-REPORT_BYTES:]
        send_frame(control, {"failed": {"text": text, "refused": _refused(error)}})
        os._exit(70)
    if not plan["keeps_the_dead"]:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    send_frame(control, {"loaded": True})
    while True:
        data, fds = _receive_descriptors(control)
        if not data:
            os._exit(0)
        if data == b"R":
            _let_go(int.from_bytes(control.recv(4, socket.MSG_WAITALL), "big"))
            continue
        newborn.expect(fds)
        if confinement is None or _fork(control) == 0:
            newborn.live()
        for fd in fds:
            os.close(fd)


def _refused(error: BaseException) -> list[Any] | None:
    """Errno, path and asker of what the kernel refused the script, for the supervisor to explain; null where there is nothing."""
    try:
        from pyproc_worker.refusal import refused_of

        found = refused_of(error)
    except BaseException:  # noqa: BLE001 - the exception's own code raised; the traceback is told all the same
        return None
    return None if found is None else [found.errno, found.path, found.asked]


def _extend_path(plan: dict[str, Any]) -> None:
    import site

    known = set(sys.path)
    for path in plan["sys_path"]:
        if path not in known:
            sys.path.append(path)
            known.add(path)
    for path in plan["site_path"]:
        site.addsitedir(path, known)


def _load(plan: dict[str, Any]) -> None:
    """Run the script."""
    from pyproc_wire.connection import WorkerConnection
    from pyproc_worker import pickled, standalone, stdio
    from pyproc_worker.registry import current

    stdio.install()  # before the script, so that loggers which it makes write to the counted streams
    standalone.SUPERVISED = True
    for name in plan["preload"]:
        __import__(name)
    path, source, folder = (plan["script"][name] for name in ("path", "source", "folder"))
    if folder is not None:
        sys.path.insert(0, folder)
    # the script is not in the sandbox's file system: tracebacks find its lines here
    import linecache

    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv[:] = [path]
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the user's own script
    current.freeze()
    current.answer_unlisted(pickled.runner())
    WorkerConnection().ready(current.describe())  # what cannot be announced is said now


def _let_go(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        pass  # the script's own code waited for it


def _fork(control: socket.socket) -> int:
    try:
        return os.fork()
    except OSError as error:
        send_frame(control, {"fork_failed": error.errno or 1})
        return -1


def _receive_descriptors(control: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4 * LENT), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)
