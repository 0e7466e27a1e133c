"""The script of the tests of `map`: functions that fail, die, wait and print for some of their bodies."""

from __future__ import annotations

import os
import time
from typing import Any

from pyproc_worker import PublicError, current_call, expose, run_worker


@expose
def act(body: Any) -> Any:
    """The body, unless it says what else."""
    if type(body) is not dict or "act" not in body:
        return body
    word = body["act"]
    if word == "raise":
        raise ValueError("hidden")
    if word == "public":
        raise PublicError("shown")
    if word == "object":
        return object()
    if word == "deep":
        deep: Any = 0
        for _ in range(64):
            deep = [deep]
        return deep
    if word == "die":
        os._exit(3)
    if word == "spin":
        while True:
            pass
    if word == "print":
        print("printed", body["text"])
    return body


@expose
def typed(number: int) -> int:
    return number


@expose(idempotent=True)
def repeatable(body: Any) -> Any:
    return act(body)


@expose
def times(n: int):  # type: ignore[no-untyped-def]
    yield from range(n)


@expose
async def later(body: Any) -> Any:
    return body


@expose
def watched(body: Any, cancel_event: Any) -> Any:
    return [body, cancel_event.is_set()]


@expose
def who(body: Any) -> list[Any]:
    return [current_call().id, os.getpid()]


@expose
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


run_worker()
