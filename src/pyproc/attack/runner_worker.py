"""The worker script of the corpus: runs attacks inside the sandbox, in calls and at import.

Rules and reasons:
* This file is handed to a pool as the user's script. It is the attacker; nothing here protects anything.
* Attacks that are to run at import come in the environment, since at import there is no call yet. The import is
  where a hostile script stands closest to the zygote, before any worker exists.
* An exception is an answer: it says by which error the attack was stopped.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pyproc_worker import expose, run_worker

IMPORT_VARIABLE = "PYPROC_ATTACK_IMPORT"
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
    return {name: attempt(name, order["prelude"] + code, order["targets"]) for name, code in order["attacks"].items()}


ANSWERS = at_import()


@expose
def run(id: str, code: str, targets: dict[str, Any]) -> str:
    return attempt(id, code, targets)


@expose
def import_answers() -> dict[str, str]:
    return ANSWERS


if __name__ == "__main__":
    run_worker()
