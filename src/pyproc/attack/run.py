"""Running the corpus: in a sandbox by calls, in a sandbox at import, and as controls without one.

    run_corpus(pool_factory, targets) -> Result, Result, …     run_controls(targets) -> Result, Result, …

Rules and reasons:
* A worker that dies under an attack has stopped it: the caller's error is the answer.
* At import one attack that kills the zygote would hide the others, so a batch that does not start is run again by
  halves. Only attacks of one party run there: the workers of a pool share what its import left.
* An attack on the supervisor is judged outside of the worker: by the text of the error, by the answers to honest calls
  after it, and by the log once the pool has ended.
* The pool is made by the caller: this room does not choose the configuration that it tests.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, Protocol

from pyproc.attack import corpus, plain
from pyproc.attack.corpus import Attack
from pyproc.attack.prelude import ESCAPED, PRELUDE
from pyproc.attack.targets import Targets

IMPORT_VARIABLE: Final = "PYPROC_ATTACK_IMPORT"  # as in runner_worker, which must not import this
IMPORT_BATCH: Final = 20  # attacks in one import: the order must fit into one environment string of 128 KiB
CALL_SECONDS: Final = 20.0
PEER_SECONDS: Final = 0.5  # such a call: an attack that is silent, or goes on, is meant to reach it
ANSWER_CHARS: Final = 400  # as in runner_worker
_LOST: Final = "stopped: WorkerLost"
HONEST: Final = ("one", "two")  # calls after an attack on the supervisor: the first may be lost with the worker


class CallingPool(Protocol):
    """What is used of a pool."""

    def call(self, method: str, body: object = ..., *, timeout: float | None = ...) -> Any: ...
    def stream(self, method: str, body: object = ...) -> Any: ...


class PoolFactory(Protocol):
    """Makes a pool under the configuration that is tested; `options` beyond that are workers and isolation."""

    def __call__(self, script: Path, environment: Mapping[str, str], **options: Any) -> AbstractContextManager[CallingPool]: ...


@dataclass(frozen=True, slots=True)
class Result:
    """`where`: call, import or control; `answer`: what the attack said, or the error that ended it."""

    id: str
    where: str
    escaped: bool
    answer: str


def _import_answers(pool_factory: PoolFactory, script: Path, known: Mapping[str, Any], codes: Mapping[str, str]) -> Any:
    """What each of `codes` answers at import. Raises PyprocError where no pool comes of it."""
    order = json.dumps({"prelude": PRELUDE, "targets": dict(known), "attacks": dict(codes)})
    with pool_factory(script, {IMPORT_VARIABLE: order}) as pool:
        return pool.call("import_answers", None, timeout=CALL_SECONDS)


def run_corpus(
    pool_factory: PoolFactory,
    targets: Targets,
    attacks: Iterable[Attack] | None = None,
    *,
    scratch: str = "/scratch",
    at_import: bool = True,
) -> Iterator[Result]:
    """Every attack that fits this machine, by calls and, if asked, once more while the script is imported."""
    chosen = _fitting(attacks)
    known = targets.map(scratch=scratch)
    with as_file(files("pyproc.attack") / "runner_worker.py") as script:
        alone = [attack for attack in chosen if attack.scene == "alone"]
        deadly: set[str] = set()
        for result in _by_call(pool_factory, script, known, alone) if alone else ():
            if result.answer.startswith(_LOST):
                deadly.add(result.id)
            yield result
        for scene, options, play in _SCENES:
            cast = [attack for attack in chosen if attack.scene == scene]
            if cast:
                with pool_factory(script, {}, **options) as pool:
                    for attack in cast:
                        yield _result(attack, "call", _answered(play, pool, attack, known))
        for attack in chosen:
            if attack.scene == "peer":
                yield _as_peer(pool_factory, script, known, attack)
        if at_import and alone:
            _import_answers(pool_factory, script, known, {"harmless": HARMLESS})  # else every attack would seem to be stopped
            for batch in _batches(alone, deadly):
                yield from _by_import(pool_factory, script, known, batch)


def run_controls(targets: Targets, attacks: Iterable[Attack] | None = None) -> Iterator[Result]:
    """Every attack with a control, in a process of a plain uid without a sandbox."""
    return (control(targets, attack) for attack in _fitting(attacks) if attack.has_control)


def control(targets: Targets, attack: Attack) -> Result:
    """The attack without a sandbox: it must succeed, or its failure inside proves nothing."""
    targets.renew()
    process = plain.start(
        corpus.control_source(attack),
        targets.map(),
        namespace=attack.namespace,
        env=targets.control_environment(),
        pass_fds=targets.left_open,
    )
    return _result(attack, "control", plain.answer(process))


def runs(attacks: Iterable[Attack], *, controls: bool) -> int:
    """How many results these attacks have."""
    fitting = _fitting(attacks)
    return sum(1 + (attack.scene == "alone") + (controls and attack.has_control) for attack in fitting)


def _fitting(attacks: Iterable[Attack] | None) -> list[Attack]:
    return [attack for attack in (corpus.load() if attacks is None else attacks) if attack.fits_this_machine]


def _batches(attacks: Sequence[Attack], deadly: set[str]) -> list[Sequence[Attack]]:
    """What ended a worker is likely to end the zygote too, and goes alone."""
    mild = [attack for attack in attacks if attack.id not in deadly]
    batches: list[Sequence[Attack]] = [mild[first : first + IMPORT_BATCH] for first in range(0, len(mild), IMPORT_BATCH)]
    return batches + [[attack] for attack in attacks if attack.id in deadly]


def _result(attack: Attack, where: str, answer: object) -> Result:
    return Result(attack.id, where, corpus.escaped(answer), str(answer)[:ANSWER_CHARS])


def _answered(call: Callable[..., object], *arguments: Any, **named: Any) -> object:
    from pyproc.errors import CallError

    try:
        return call(*arguments, **named)
    except CallError as error:
        return f"stopped: {type(error).__name__}: {error}"


def _order(attack: Attack, known: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"code": corpus.source(attack), "targets": {**known, **more}}


def _run(pool: CallingPool, attack: Attack, known: Mapping[str, Any], **more: Any) -> Any:
    return pool.call("run", {"id": attack.id, **_order(attack, known, **more)}, timeout=CALL_SECONDS)


def _by_call(
    pool_factory: PoolFactory, script: Path, known: Mapping[str, Any], attacks: Sequence[Attack]
) -> Iterator[Result]:
    with pool_factory(script, {}) as pool:
        for attack in attacks:
            yield _result(attack, "call", _answered(_run, pool, attack, known))


def _after_a_call(pool: CallingPool, attack: Attack, known: Mapping[str, Any]) -> Any:
    planted = pool.call("plant", _order(attack, known), timeout=CALL_SECONDS)
    return _run(pool, attack, known, planted=planted)


def _beside_a_sibling(pool: CallingPool, attack: Attack, known: Mapping[str, Any]) -> Any:
    parts = pool.stream("hold", _order(attack, known))
    try:
        return _run(pool, attack, known, planted=next(parts))
    finally:
        parts.close()


_SCENES: Final[tuple[tuple[str, dict[str, Any], Callable[..., Any]], ...]] = (
    ("earlier call", {"isolation": "call"}, _after_a_call),
    ("sibling", {"workers": 2}, _beside_a_sibling),
)


HARMLESS: Final = "def attack(T):\n    return 'nothing was tried'\n"


class _Log(logging.Handler):
    """What the supervisor logs meanwhile; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._logger = logging.getLogger("pyproc")
        self._level = self._logger.level

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> _Log:
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)


def _as_peer(pool_factory: PoolFactory, script: Path, known: Mapping[str, Any], attack: Attack) -> Result:
    with _Log() as log, pool_factory(script, {}) as pool:
        answer = _answered(pool.call, "act", _order(attack, known), timeout=PEER_SECONDS)
        honest = {text: _answered(pool.call, "echo", {"text": text}) for text in HONEST}
    if not corpus.escaped(answer) and ESCAPED in str(answer):
        answer = f"{ESCAPED}: its text reached the caller: {answer}"
    for asked, got in honest.items():
        if got != asked and not str(got).startswith("stopped: "):
            answer = f"{ESCAPED}: the next call got {got!r}"
    for line in log.lines:
        if not _one_record(line):
            answer = f"{ESCAPED}: a line of the log is {line!r}"
    return _result(attack, "call", answer)


def _one_record(text: str) -> bool:
    """Whether nobody can take a part of it for a record of its own, or be shown more than text: further lines are indented."""
    first, *further = text.split("\n")
    return first.isprintable() and all(line.isprintable() and line.startswith("    ") for line in further)


def _by_import(pool_factory: PoolFactory, script: Path, known: Mapping[str, Any], attacks: Sequence[Attack]) -> list[Result]:
    from pyproc.errors import PyprocError

    try:
        answers = _import_answers(
            pool_factory, script, known, {attack.id: corpus.source(attack).removeprefix(PRELUDE) for attack in attacks}
        )
    except PyprocError as error:
        if len(attacks) == 1:
            return [_result(attacks[0], "import", f"stopped: {type(error).__name__}: {error}")]
        middle = len(attacks) // 2
        return [result for part in (attacks[:middle], attacks[middle:]) for result in _by_import(pool_factory, script, known, part)]
    return [_result(attack, "import", answers[attack.id]) for attack in attacks]
