"""A worker whose functions are refused in many ways."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import sqlite3
import subprocess
import threading

from pyproc_worker import PublicError, expose


@expose
def read(path: str) -> str:
    with open(path) as file:
        return file.read()


@expose
def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("x")


@expose
def listed(path: str) -> list[str]:
    return os.listdir(path)


@expose
def dial() -> None:
    socket.create_connection(("127.0.0.1", 9), 1)


@expose
def program() -> None:
    subprocess.run(["/bin/true"], check=True)


@expose
def threads() -> None:
    gate = threading.Event()
    started = [threading.Thread(target=gate.wait, daemon=True) for _ in range(200)]
    try:
        for thread in started:
            thread.start()
    finally:
        gate.set()


@expose
def descriptors() -> int:
    return len([open("/dev/null") for _ in range(500)])


@expose
def signals() -> None:
    os.kill(1, 9)


@expose
def seals() -> None:
    os.memfd_create("x")


@expose
def executable_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


@expose
def module() -> None:
    import a_module_beside_the_script  # type: ignore[import-not-found]  # noqa: F401


@expose
def wrapped() -> None:
    try:
        read("/srv/wrapped")
    except OSError as error:
        raise ValueError("no model") from error


@expose
def public() -> None:
    try:
        read("/srv/told")
    except OSError:
        raise PublicError("no model today")  # noqa: B904 - the chain is found by its context too


@expose
def forged() -> None:
    raise PermissionError(1, "x", "/srv/\x1b[2J\nforged error_id=1 " + "x" * 10_000)


@expose
def odd() -> None:
    class Odd(PermissionError):
        filename = property(lambda self: 1 / 0)
        errno = property(lambda self: 1 / 0)

    raise Odd(13, "x", "/srv/odd")


@expose
def database() -> None:
    sqlite3.connect("/srv/x.db").execute("select 1")


@expose
def foreign() -> None:
    ctypes.CDLL(None).syscall(0x40000000 + 39)  # x32: getpid


@expose
def spin() -> None:
    while True:
        pass


@expose
def fine() -> int:
    return 1


@expose
def missing() -> None:
    read("/usr/lib/no such file")


@expose
def own_error() -> None:
    raise OSError(28, "said for fun")
