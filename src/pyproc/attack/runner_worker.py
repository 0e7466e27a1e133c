"""The worker script of the corpus: runs attacks inside the sandbox, in calls and at import.

Rules and reasons:
* This file is handed to a pool as the user's script. It is the attacker; nothing here protects anything.
* Attacks that are to run at import come in the environment, since at import there is no call yet. The import is
  where a hostile script stands closest to the zygote, before any worker exists.
* An exception is an answer: it says by which error the attack was stopped.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from pyproc_wire.places import ARENA_ANSWERS
from pyproc_worker import check_cancelled, expose, run_worker

IMPORT_VARIABLE = "PYPROC_ATTACK_IMPORT"
LEFT_OPEN = (ARENA_ANSWERS + 1, 1024)  # descriptors beyond those that every zygote has
ANSWER_CHARS = 400  # an answer is read by a person


def attempt(name: str, code: str, targets: dict[str, Any]) -> str:
    """The attack's answer, or the error that stopped it."""
    space: dict[str, Any] = {"T": targets}
    try:
        exec(compile(code, f"<attack {name}>", "exec"), space)  # noqa: S102 - running hostile code is the purpose
        answer = str(space["attack"](targets))
    except BaseException as error:  # noqa: BLE001 - SystemExit is an answer too
        answer = f"stopped: {type(error).__name__}: {error}"
    return answer[:ANSWER_CHARS]


def at_import() -> dict[str, str]:
    text = os.environ.get(IMPORT_VARIABLE)
    if not text:
        return {}
    order = json.loads(text)
    answers: dict[str, str] = {}
    for name, code in order["attacks"].items():
        answers[name] = attempt(name, order["prelude"] + code, order["targets"])
        os.closerange(*LEFT_OPEN)  # a zygote that holds a pipe is refused: one attack would hide the others
    return answers


ANSWERS = at_import()
KEPT: list[Any] = []  # the names of plants: what they hold lives as long as the worker


@expose
def run(id: str, code: str, targets: dict[str, Any]) -> str:
    return attempt(id, code, targets)


@expose
def act(code: str, targets: dict[str, Any]) -> Any:
    """The attack as a function of the user's: its result and its exceptions go where those go."""
    space: dict[str, Any] = {"T": targets}
    exec(compile(code, "<attack>", "exec"), space)  # noqa: S102 - as above
    return space["attack"](targets)


@expose
def plant(code: str, targets: dict[str, Any]) -> Any:
    """What an attack leaves for another call, or the error that stopped it."""
    space: dict[str, Any] = {"T": targets}
    exec(compile(code, "<plant>", "exec"), space)  # noqa: S102 - as above
    try:
        return space["plant"](targets)
    except BaseException as error:  # noqa: BLE001 - as above
        return f"stopped: {type(error).__name__}: {error}"
    finally:
        KEPT.append(space)


@expose
def hold(code: str, targets: dict[str, Any]) -> Iterator[Any]:
    """As `plant`, and stays busy until its caller leaves."""
    yield plant(code, targets)
    while True:
        check_cancelled()
        time.sleep(0.002)


@expose
def call_numbers(calls: list[tuple[int, list[int | None]]]) -> list[int]:
    """The result of each system call, its errno as a negative number; None is the address of an empty page."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    page, own, results = ctypes.create_string_buffer(4096), os.getpid(), []
    for number, arguments in calls:
        given = [ctypes.c_long(ctypes.addressof(page) if a is None else a) for a in arguments]
        result = libc.syscall(ctypes.c_long(number), *given)
        if os.getpid() != own:
            os._exit(0)  # the call was a fork, and this is the child
        results.append(-ctypes.get_errno() if result == -1 else result)
    return results


@expose
def echo(text: str) -> str:
    return text


@expose
def import_answers() -> dict[str, str]:
    return ANSWERS


if __name__ == "__main__":
    run_worker()
