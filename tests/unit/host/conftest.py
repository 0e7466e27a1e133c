"""Real children for the tests of `host`, and a kernel whose n-th call fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyproc.host import libc

Start = Callable[..., "subprocess.Popen[bytes]"]
SAY = "import sys,os,signal,time,threading,ctypes\ndef say():\n    sys.stdout.write('ready\\n'); sys.stdout.flush()\n"


class NthCallFails:
    """Stands for `libc.kernel`: call number `nth` (from 1) raises OSError(`code`), every other one is real."""

    def __init__(self, real: libc.Kernel, nth: int, code: int, only: str | None = None) -> None:
        self.nth, self.code, self.only = nth, code, only
        self.made: list[str] = []
        self._real = real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if self.only is None or name == self.only:
                self.made.append(name)
                if len(self.made) == self.nth:
                    raise OSError(self.code, f"{name}: made to fail")
            return real(*arguments, **options)

        return call


@pytest.fixture
def failing() -> Iterator[Callable[..., NthCallFails]]:
    """failing(nth, errno, only=None): from now on that call of `host` fails; returns what counts them."""
    real = libc.kernel

    def install(nth: int, code: int, only: str | None = None) -> NthCallFails:
        double = NthCallFails(real, nth, code, only)
        libc.kernel = double  # type: ignore[assignment]
        return double

    yield install
    libc.kernel = real


@pytest.fixture
def start() -> Iterator[Start]:
    """start(code, **Popen options): a Python child that runs `code` after its `say()` was read."""
    children: list[subprocess.Popen[bytes]] = []

    def run(code: str, **options: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", SAY + code], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, **options)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child

    yield run
    for child in children:
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        child.wait(timeout=10)


@pytest.fixture
def held() -> Iterator[Callable[[int], int]]:
    """held(fd) -> fd, closed at the end of the test."""
    kept: list[int] = []

    def keep(fd: int) -> int:
        kept.append(fd)
        return fd

    yield keep
    for fd in kept:
        os.close(fd)
