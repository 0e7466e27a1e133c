"""The script of test_limits: each function meets a limit in a way of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from pyproc_worker import expose, run_worker

HELD: list[Any] = []
CHUNK = 16 << 20


def objects() -> None:
    HELD.extend(bytearray(CHUNK) for _ in range(100))


def shared_pages() -> None:
    for _ in range(100):
        page = mmap.mmap(-1, CHUNK)
        HELD.append(page)
        page.write(bytes(CHUNK))


def addresses() -> None:
    mmap.mmap(-1, 1 << 38, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE


def spin() -> None:
    while True:
        pass


def spin_in_threads() -> None:
    for _ in range(3):
        threading.Thread(target=spin, daemon=True).start()
    spin()


def threads() -> None:
    over = threading.Event()
    try:
        for _ in range(200):
            threading.Thread(target=over.wait, args=(5,), daemon=True).start()
    finally:
        over.set()


def forks() -> None:
    reader, writer = os.pipe()
    try:
        for _ in range(200):
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
    finally:
        os.close(writer)


def program() -> None:
    subprocess.run(["/bin/true"], check=True)


def descriptors() -> None:
    held = []
    try:
        held.extend(os.dup(0) for _ in range(1000))
    finally:
        for fd in held:
            os.close(fd)


def sockets() -> None:
    held = []
    try:
        for _ in range(500):
            held.append(socket.socketpair())
    finally:
        for a, b in held:
            a.close()
            b.close()


def long_file() -> None:
    with open("/scratch/long", "wb") as file:
        file.write(bytes(1 << 20))


def long_hole() -> None:
    with open("/scratch/hole", "wb") as file:
        file.truncate(1 << 20)


def long_file_with_signal() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    long_file()


def full_by_one() -> None:
    with open("/scratch/one", "wb") as file:
        for _ in range(200):
            file.write(bytes(1 << 16))


def full_by_many() -> None:
    for number in range(200):
        with open(f"/scratch/part-{number}", "wb") as file:
            file.write(bytes(1 << 16))


def files() -> None:
    for number in range(200):
        os.close(os.open(f"/scratch/file-{number}", os.O_CREAT | os.O_WRONLY))


def folders() -> None:
    for number in range(200):
        os.mkdir(f"/scratch/folder-{number}")


def to_stderr() -> None:
    while True:
        os.write(2, b"x" * 65536)


def to_stdout() -> None:
    while True:
        print("x" * 1000)


def to_the_libc() -> None:
    libc = ctypes.CDLL(None)
    while True:
        libc.puts(b"x" * 1000)


ACTS = {act.__name__: act for act in (
    objects, shared_pages, addresses, spin, spin_in_threads, threads, forks, program, descriptors, sockets, long_file, long_hole,
    long_file_with_signal, full_by_one, full_by_many, files, folders, to_stderr, to_stdout, to_the_libc)}


@expose
def meet(name: str) -> None:
    ACTS[name]()


@expose
def answer(size: int) -> bytes:
    return bytes(size)


@expose
def answer_in_list(size: int) -> list[str]:
    return ["x" * 1000] * (size // 1000)


@expose
def parts(size: int) -> Iterator[bytes]:
    yield b"first"
    yield bytes(size)


@expose
def echo(value: Any) -> Any:
    return value


@expose
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


if __name__ == "__main__":
    run_worker()
