"""The keeper, from outside: a plan that is not taken holds nobody up, and what fails half-way leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyproc.errors import ConfigError
from pyproc.host import pidfd, spawn
from pyproc.sandbox.interpreter import Interpreter
from pyproc.sandbox.plan import Plan
from pyproc.supervisor.keeper import Keeper
from pyproc.supervisor.loop import Loop

STUCK = """
import hashlib, os
if os.read(4, 1):  # the lifeline: go on
    length = int.from_bytes(os.read(3, 4), "big")
    digest = hashlib.sha256()
    while length:
        chunk = os.read(3, min(length, 65536))
        digest.update(chunk)
        length -= len(chunk)
    os.write(1, digest.hexdigest().encode())
    os.read(4, 1)
"""
DOCUMENT = {"source": "x" * (8 << 20)}  # beyond every socket's buffer


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    package = tmp_path / "pyproc_worker"
    package.mkdir()
    (package / "__main__.py").write_text(STUCK)
    return Interpreter(sys.executable, (), (), str(tmp_path), ())


def plan() -> Plan:
    return Plan(DOCUMENT, {}, {}, "", "", False, os.getuid(), os.getgid(), (), {})


def end(keeper: Keeper) -> None:
    keeper.let_go()
    assert pidfd.wait(keeper.fd, 20)
    keeper.reap()


def test_a_plan_that_is_not_taken_holds_nobody_up_and_arrives_whole(loop: Loop, interpreter: Interpreter) -> None:
    made: list[Keeper] = []
    maker = threading.Thread(target=lambda: made.append(Keeper(plan(), interpreter, loop, enters=False)), daemon=True)
    maker.start()
    maker.join(20)
    assert made, "it waits until its plan is taken"
    keeper, ran = made[0], []
    loop.later(0.0, lambda: ran.append("another action"))
    while not ran:
        loop.turn(math.inf)
    keeper.lifeline.send(b"M")
    said = bytearray()
    loop.watch(keeper.output, lambda: said.extend(os.read(keeper.output, 1024)))
    while len(said) < 64:
        loop.turn(math.inf)
    assert said.decode() == hashlib.sha256(json.dumps(DOCUMENT).encode()).hexdigest()
    loop.unwatch(keeper.output)
    assert keeper.sender < 0, "nothing is left to send, and nothing watched for it"
    end(keeper)


def test_a_keeper_that_dies_with_its_plan_half_sent_is_let_go_of(loop: Loop, interpreter: Interpreter) -> None:
    keeper = Keeper(plan(), interpreter, loop, enters=False)
    pidfd.kill(keeper.fd)
    assert pidfd.wait(keeper.fd, 20)
    while keeper.sender >= 0:
        loop.turn(math.inf)
    end(keeper)


def test_an_interpreter_that_is_not_there_is_a_mistake_of_the_configuration(loop: Loop, interpreter: Interpreter) -> None:
    missing = Interpreter("/no/such/python", (), (), interpreter.packages, ())
    with pytest.raises(ConfigError, match="'/no/such/python' cannot be started"):
        Keeper(plan(), missing, loop, enters=False)


def test_a_machine_without_processes_is_no_mistake_of_the_configuration(
    loop: Loop, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.EAGAIN, "no process is left")

    monkeypatch.setattr(spawn, "spawn", refuse)
    with pytest.raises(BlockingIOError):
        Keeper(plan(), interpreter, loop, enters=False)


def test_a_loop_that_cannot_watch_leaves_no_keeper_behind(
    loop: Loop, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "no watch is left")

    with monkeypatch.context() as full:
        full.setattr(loop, "watch", refuse)
        with pytest.raises(OSError, match="no watch is left"):
            Keeper(plan(), interpreter, loop, enters=False)
    assert not select.select([loop._epoll], [], [], 0)[0]
