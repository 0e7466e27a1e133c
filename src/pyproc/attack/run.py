"""Running the corpus: in a sandbox by calls, in a sandbox at import, and as controls without one.

    run_corpus(pool_factory, targets) -> Result, Result, …     run_controls(targets) -> Result, Result, …

Rules and reasons:
* A worker that dies under an attack has stopped it: the caller's error is the answer.
* At import one attack that kills the zygote would hide the others, so a batch that does not start is run again one
  by one.
* The pool is made by the caller: this room does not choose the configuration that it tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, Protocol

from pyproc.attack import corpus, plain
from pyproc.attack.corpus import Attack
from pyproc.attack.prelude import PRELUDE
from pyproc.attack.targets import Targets

IMPORT_VARIABLE: Final = "PYPROC_ATTACK_IMPORT"  # as in runner_worker, which must not import this
IMPORT_BATCH: Final = 20  # attacks in one import: the order must fit into one environment string of 128 KiB
CALL_SECONDS: Final = 20.0


class CallingPool(Protocol):
    """What is used of a pool."""

    def call(self, method: str, body: object = ..., *, timeout: float | None = ...) -> Any: ...


PoolFactory = Callable[[Path, Mapping[str, str]], AbstractContextManager[CallingPool]]


@dataclass(frozen=True, slots=True)
class Result:
    """`where`: call, import or control; `answer`: what the attack said, or the error that ended it."""

    id: str
    where: str
    escaped: bool
    answer: str


def run_corpus(
    pool_factory: PoolFactory,
    targets: Targets,
    attacks: Iterable[Attack] | None = None,
    *,
    scratch: str = "/scratch",
    at_import: bool = True,
) -> Iterator[Result]:
    """Every attack that fits this machine, by a call and, if asked, once more while the script is imported."""
    chosen = _fitting(attacks)
    known = targets.map(scratch=scratch)
    with as_file(files("pyproc.attack") / "runner_worker.py") as script:
        yield from _by_call(pool_factory, script, known, chosen)
        if at_import:
            for first in range(0, len(chosen), IMPORT_BATCH):
                yield from _by_import(pool_factory, script, known, chosen[first : first + IMPORT_BATCH])


def run_controls(targets: Targets, attacks: Iterable[Attack] | None = None) -> Iterator[Result]:
    """Every attack with a control, in a process of a plain uid without a sandbox."""
    return (control(targets, attack) for attack in _fitting(attacks) if attack.has_control)


def control(targets: Targets, attack: Attack) -> Result:
    """The attack without a sandbox: it must succeed, or its failure inside proves nothing."""
    targets.renew()
    process = plain.start(
        corpus.source(attack),
        targets.map(),
        namespace=attack.namespace,
        env=targets.control_environment(),
        pass_fds=targets.left_open,
    )
    return _result(attack, "control", plain.answer(process))


def _fitting(attacks: Iterable[Attack] | None) -> list[Attack]:
    return [attack for attack in (corpus.load() if attacks is None else attacks) if attack.fits_this_machine]


def _result(attack: Attack, where: str, answer: object) -> Result:
    return Result(attack.id, where, corpus.escaped(answer), str(answer))


def _by_call(
    pool_factory: PoolFactory, script: Path, known: Mapping[str, Any], attacks: Sequence[Attack]
) -> Iterator[Result]:
    from pyproc.errors import CallError

    with pool_factory(script, {}) as pool:
        for attack in attacks:
            body = {"id": attack.id, "code": corpus.source(attack), "targets": dict(known)}
            answer: object
            try:
                answer = pool.call("run", body, timeout=CALL_SECONDS)
            except CallError as error:
                answer = f"stopped: {type(error).__name__}: {error}"
            yield _result(attack, "call", answer)


def _by_import(pool_factory: PoolFactory, script: Path, known: Mapping[str, Any], attacks: Sequence[Attack]) -> list[Result]:
    from pyproc.errors import PyprocError

    order = {
        "prelude": PRELUDE,
        "targets": dict(known),
        "attacks": {attack.id: corpus.source(attack).removeprefix(PRELUDE) for attack in attacks},
    }
    try:
        with pool_factory(script, {IMPORT_VARIABLE: json.dumps(order)}) as pool:
            answers = pool.call("import_answers", None, timeout=CALL_SECONDS)
    except PyprocError as error:
        if len(attacks) == 1:
            return [_result(attacks[0], "import", f"stopped: {type(error).__name__}: {error}")]
        return [result for attack in attacks for result in _by_import(pool_factory, script, known, [attack])]
    return [_result(attack, "import", answers[attack.id]) for attack in attacks]
