"""The script that the integration tests call; its import-time attacks record what they met."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import threading
import time
from typing import Any

from pyproc_worker import PublicError, check_cancelled, current_call, expose, run_worker, safe_open

AT_IMPORT: dict[str, str] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def _attempt(name: str, act: Any) -> None:
    try:
        AT_IMPORT[name] = f"ESCAPED {act()!r}"
    except BaseException as error:
        AT_IMPORT[name] = f"stopped {type(error).__name__}"


def _raw(number: int, *arguments: int) -> int:
    result = int(LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _fork_and_wait() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)  # a copy that went on importing would be a second zygote
    try:
        os.waitpid(child, 0)
    except ChildProcessError:  # a worker's zygote ignores SIGCHLD
        pass
    return child


ATTACKS: dict[str, Any] = {
    "fork": _fork_and_wait,
    "socket": lambda: socket.socket(socket.AF_INET),
    "vsock": lambda: socket.socket(40),
    "kill": lambda: os.kill(1, 0) or "sent",
    "setrlimit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)) or "set",
    "seccomp": lambda: _raw(317, 1, 0, 0),
    "landlock": lambda: _raw(444, 0, 0, 0),
    "unshare": lambda: _raw(272, 0x10000000),
    "dumpable": lambda: _raw(157, 4, 1, 0, 0, 0),
    "memfd": lambda: os.memfd_create("x"),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "passwd": lambda: open("/etc/passwd").read(),
    "write": lambda: open("/scratch/x", "w"),
    "setuid": lambda: os.setuid(0) or "set",
}
if "NO_IMPORT_ATTACKS" not in os.environ:  # without the layer seccomp some of them succeed, and the zygote is refused for it
    for _name, _act in ATTACKS.items():
        _attempt(_name, _act)


class AtFork:
    """What the environment asks for at the n-th fork of this script's zygote: `AT_FORK=word:n`."""

    forks = 0
    word, _, number = os.environ.get("AT_FORK", ":0").partition(":")

    @classmethod
    def before(cls) -> None:
        cls.forks += 1

    @classmethod
    def in_child(cls) -> None:
        if cls.forks != int(cls.number):
            return
        if cls.word == "descriptor":
            os.dup(0)  # one more than was given
        elif cls.word == "hang_up":
            os.closerange(3, 64)
            time.sleep(60)
        elif cls.word == "silence":
            time.sleep(60)


os.register_at_fork(before=AtFork.before, after_in_child=AtFork.in_child)


@expose
def echo(req):  # type: ignore[no-untyped-def]
    return req


@expose
def area(width: float, height: float = 2.0) -> float:
    return width * height


@expose
def at_import() -> dict[str, str]:
    return AT_IMPORT


@expose
def attack(name: str) -> str:
    _attempt(name, ATTACKS[name])
    return AT_IMPORT[name]


@expose
def hide_secret(secret: str) -> None:
    try:
        raise KeyError(secret)
    except KeyError as cause:
        error = ValueError(f"failed with {secret}")
        error.add_note(secret)
        raise error from cause


@expose
def public(text: str) -> None:
    raise PublicError(text)


@expose
def die_by(number: int) -> None:
    if number == signal.SIGABRT:
        os.abort()
    if number == signal.SIGSEGV:
        ctypes.string_at(0)
    os._exit(number)


@expose
def spin() -> None:
    while True:
        pass


@expose
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@expose
def patient() -> None:
    while True:
        check_cancelled()
        time.sleep(0.001)


@expose(timeout=0.2)
def impatient() -> None:
    while True:
        pass


@expose
def hoard() -> int:
    return len([bytearray(16 << 20) for _ in range(100)])


@expose
def shout(count: int) -> int:
    for _ in range(count):
        os.write(2, b"x" * 65536)
    return count


@expose
def say(text: str) -> None:
    print(text)


@expose
def numbers(n: int):  # type: ignore[no-untyped-def]
    yield from range(n)


@expose
def stalls(n: int):  # type: ignore[no-untyped-def]
    yield from range(n)
    threading.Event().wait()


@expose
async def later(x: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return x + 1


@expose
def who() -> list[Any]:
    return [os.getpid(), current_call().method, dict(os.environ)]


@expose
def draw() -> float:
    import random

    return random.random()


@expose
def raw_channel(data: bytes) -> None:
    """A hostile worker: writes to its channel behind the protocol's back."""
    os.write(3, data)
    time.sleep(60)


@expose
def fork_on() -> None:
    """Asks for more processes than it may have, and does not take no for an answer."""
    while True:
        try:
            _fork_and_wait()
        except OSError:
            continue


@expose
def write_past_the_limit(size: int) -> int:
    """As code that restored the signal which CPython ignores."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with open("/scratch/big", "wb") as file:
        return file.write(bytes(size))


@expose
def burn_on() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    spin()


@expose
def call_by_x32() -> int:
    return _raw(0x40000000 | 39)  # getpid by its number of the x32 ABI


@expose
def one_and_no_end():  # type: ignore[no-untyped-def]
    yield 1
    spin()


@expose
def fill_scratch() -> None:
    with open("/scratch/full", "wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 16))


@expose
def beneath(path: str) -> str:
    return str(safe_open(sys.prefix, path).read(1))


if __name__ == "__main__":
    run_worker()
