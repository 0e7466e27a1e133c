"""The zygote: imports the user's script inside the finished sandbox and forks workers; it never serves a call.

Everything from here on may be the attacker's: the walls stand (`jail.apply`). Fork, the worker's own user namespace,
its second Landlock domain and its final filter are decided by the supervisor through seccomp user notification, one by
one and only for the child of a fork that it asked for; import-time code that tries them is refused.

    supervisor                                         zygote                             worker
       | control: "F" + [channel, stdout, stderr] ----> | fork (notified) ----------------> | private descriptors
       |                                                |                                   | confine (notified steps)
       | <--- channel: ready, with the kernel's credentials and pidfd of the sender --------- | serve

SIGCHLD is ignored, so the kernel reaps at once and keeps the exit status for the supervisor's pidfd.
"""

from __future__ import annotations

import array
import base64
import gc
import os
import signal
import socket
import sys
import traceback
import types
from typing import Any

from pyproc_worker.boot import send_frame
from pyproc_worker.jail import credentials, landlock, libc, namespaces, seccomp

CHANNEL = 3
REPORT_BYTES = 65536


def run(plan: dict[str, Any], listener: int, control: socket.socket) -> None:
    """Hand the listener over, import the script, then fork on demand until the supervisor hangs up."""
    send_frame(control, {"listener": listener})
    if control.recv(1) != b"L":
        os._exit(0)
    if listener:
        os.close(listener)
    try:
        _load(plan)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        text = "".join(traceback.format_exception(error))[-REPORT_BYTES:]
        send_frame(control, {"failed": {"script": plan["script"]["path"], "kind": type(error).__name__, "text": text}})
        os._exit(70)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    gc.freeze()
    send_frame(control, {"loaded": True})
    while True:
        data, fds = _receive_descriptors(control)
        if not data:
            os._exit(0)
        if plan["solo"] or _fork(control) == 0:
            _become_worker(plan, fds, control)
        for fd in fds:
            os.close(fd)


def _load(plan: dict[str, Any]) -> None:
    import site

    known = set(sys.path)
    for path in plan["sys_path"]:
        if path not in known:
            sys.path.append(path)
            known.add(path)
    for path in plan["site_path"]:
        site.addsitedir(path, known)
    # what a worker needs is loaded here, once: an import in each worker cost 15 ms of its start
    from pyproc_wire.connection import WorkerConnection
    from pyproc_worker import entropy, loop, standalone, stdio
    from pyproc_worker.registry import current

    del entropy, loop
    stdio.install()  # before the script, so that loggers which it makes write to the counted streams

    standalone.SUPERVISED = True
    for name in plan["preload"]:
        __import__(name)
    path, source = plan["script"]["path"], plan["script"]["source"]
    # the script is not in the sandbox's file system: tracebacks find its lines here
    import linecache

    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv[:] = [path]
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the user's own script
    current.freeze()
    WorkerConnection().ready(current.describe(), {})  # what cannot be announced is said now, and the codec is warm


def _fork(control: socket.socket) -> int:
    try:
        return os.fork()
    except OSError as error:
        send_frame(control, {"fork_failed": error.errno or 1})
        return -1


def _receive_descriptors(control: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(12), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)


def _become_worker(plan: dict[str, Any], fds: list[int], control: socket.socket) -> None:
    code = 70
    try:
        from pyproc_worker import entropy, loop  # loaded by the zygote already (`_load`)
        from pyproc_worker.registry import current

        channel_fd, out, err = fds
        null = os.open("/dev/null", os.O_RDONLY)
        control.detach()
        for source, target in ((null, 0), (out, 1), (err, 2), (channel_fd, CHANNEL)):
            os.dup2(source, target)
        for fd in {null, channel_fd, out, err} - {0, 1, 2, CHANNEL}:
            os.close(fd)
        if not plan["solo"]:
            _confine(plan)
        entropy.reseed()
        gc.enable()
        details = {"pid": os.getpid()}
        loop.serve(socket.socket(fileno=CHANNEL), current, request_limit=plan["limits"]["request"],
                   response_limit=plan["limits"]["response"], details=details)
        code = 0
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        os.write(2, ("worker could not start: " + traceback.format_exc()[-REPORT_BYTES:]).encode())
    os._exit(code)


def _confine(plan: dict[str, Any]) -> None:
    """The worker's second line, in the order of `jail.apply`; each notified step was granted by the supervisor."""
    worker = plan["worker"]
    if worker["setsid"]:
        os.setsid()
    if worker["user_namespace"]:
        namespaces.unshare(["user"])
        credentials.drop_bounding()
        libc.prctl(credentials.PR_SET_SECUREBITS, credentials.SECUREBITS)
        libc.call("capset", _EMPTY_HEADER, bytes(24))
    if worker["landlock"]:
        landlock.restrict(worker["landlock"]["abi"], None)
    if worker["seccomp"]:
        program = bytearray(base64.b64decode(worker["seccomp"]))
        for at in worker["marks"]:
            program[at : at + 4] = os.getpid().to_bytes(4, sys.byteorder)
        seccomp.load(bytes(program))


_EMPTY_HEADER = (credentials.CAPABILITY_VERSION_3).to_bytes(4, sys.byteorder) + bytes(4)
