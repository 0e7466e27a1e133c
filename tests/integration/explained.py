"""A worker that tries what it is told and answers with the errno, 0 where it was let."""

from __future__ import annotations

import ctypes
import os
import socket
import threading

from pyproc_worker import expose

syscall = ctypes.CDLL(None, use_errno=True).syscall
syscall.restype = ctypes.c_long


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # a worker ignores SIGCHLD: the kernel has reaped it


def _thread() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _connect(path: str, host: str, port: int) -> None:
    family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.connect(path or (host, port))


def _listen(path: str, host: str, port: int) -> None:
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(path or (host, port))
        made.listen()


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_CLOEXEC, 0o600))


DOES = {
    "open": lambda path: _open(path, os.O_RDONLY), "write": lambda path: _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    "list": os.listdir, "stat": os.lstat, "mkdir": os.mkdir, "rmdir": os.rmdir, "remove": os.unlink,
    "rename": lambda path: os.rename(path, path + ".new"), "symlink": lambda path: os.symlink("x", path),
    "link": lambda path: os.link(path, path + ".new"), "truncate": lambda path: os.truncate(path, 0),
    "chmod": lambda path: os.chmod(path, 0o600), "chown": lambda path: os.chown(path, -1, -1), "utime": os.utime,
    "mkfifo": os.mkfifo, "exec": lambda path: os.execv(path, [path]),
}


@expose
def attempt(kind: str, path: str, host: str, port: int, arguments: list[int], before: list[str]) -> int:
    for folder_or_file in before:  # what must be there first, in the scratch
        if folder_or_file.endswith("/"):
            os.mkdir(folder_or_file)
        else:
            _open(folder_or_file, os.O_WRONLY | os.O_CREAT)
    try:
        if kind == "call":
            ctypes.set_errno(0)
            return ctypes.get_errno() if syscall(*(ctypes.c_long(a) for a in arguments)) < 0 else 0
        if kind in ("fork", "thread"):
            {"fork": _fork, "thread": _thread}[kind]()
        elif kind in ("connect", "listen"):
            {"connect": _connect, "listen": _listen}[kind](path, host, port)
        else:
            DOES[kind](path)
    except OSError as error:
        return error.errno or -1
    return 0
