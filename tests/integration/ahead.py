"""Functions for the tests of calls that are sent ahead. `held` ends when a file appears that a test makes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from pyproc_wire.connection import WorkerConnection
from pyproc_wire.places import ANSWERS, REQUESTS
from pyproc_worker import check_cancelled, expose, run_worker

ran: list[int] = []


@expose
def echo(x: Any) -> Any:
    return x


@expose
def mark(number: int) -> list[int]:
    """The worker's pid and all marks that this process has seen: what runs twice is seen twice."""
    ran.append(number)
    return [os.getpid(), *ran]


@expose
def held(path: str) -> int:
    while not os.path.exists(path):
        time.sleep(0.001)
    return os.getpid()


@expose
def held_and_looking(path: str) -> int:
    check_cancelled()
    return held(path)


@expose
async def held_in_a_loop(path: str) -> int:
    while not os.path.exists(path):
        await asyncio.sleep(0.001)
    return os.getpid()


@expose
def held_then_die(path: str) -> None:
    held(path)
    os._exit(3)


@expose
def answer_the_next(value: int) -> None:
    """A hostile worker: reads a call that was sent ahead behind the protocol's back and answers it before its own, with `value`."""
    reader = WorkerConnection()
    reader.ready({})
    (request,) = reader.receive(os.read(REQUESTS, 65536))
    os.write(ANSWERS, reader.success(request.id, value))
    time.sleep(60)


@expose
def parts(number: int):  # type: ignore[no-untyped-def]
    yield from range(number)


@expose
def say(text: str) -> None:
    print(text)


@expose
def fail(text: str) -> None:
    raise ValueError(text)


if __name__ == "__main__":
    run_worker()
