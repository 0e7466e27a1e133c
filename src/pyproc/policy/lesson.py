"""What is learnt, as values: the parts of a proposal, a policy on the way, and the lesson at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pyproc.policy.observe import Run
from pyproc.sandbox.explain import spelled
from pyproc.sandbox.rules import Condition
from pyproc.sandbox.verdict import Change
from pyproc.supervisor.spec import WorkerSpec


class Extra(NamedTuple):
    """A system call for a profile of one's own, allowed where all conditions hold."""

    name: str
    conditions: tuple[Condition, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}{' where ' if self.conditions else ''}{' and '.join(map(spelled, self.conditions))}"


Part = Change | Extra


class Reason(NamedTuple):
    """Where a part was asked for: the import or a method, and doing what."""

    where: str
    what: str


@dataclass(frozen=True)
class State:
    """A policy on the way: what is added to the present one."""

    parts: tuple[Part, ...] = ()

    def without(self, left_out: Sequence[Part]) -> State:
        """All parts but these."""
        return State(tuple(part for part in self.parts if part not in left_out))

    def plus(self, part: Part) -> State:
        """With one more; a key that has one value gets the new one."""
        if part in self.parts:
            return self
        single = part.key if isinstance(part, Change) and part.key != "sandbox.read" else None
        kept = tuple(p for p in self.parts if single is None or not isinstance(p, Change) or p.key != single)
        return State((*kept, part))

    @property
    def extras(self) -> tuple[Extra, ...]:
        """The system calls beyond the profile that is named."""
        return tuple(part for part in self.parts if isinstance(part, Extra))


@dataclass
class Lesson:
    """What was learnt. `needed`: part -> why; `unneeded`: asked for, and the calls end the same without; `refused`: never proposed.

    `run` is that of an ordinary pool under the proposal, `proven` says that its calls all end well; `exact`: results were compared too.
    """

    present: WorkerSpec
    proposed: WorkerSpec
    own_profile: str = ""
    base_profile: str = ""
    needed: dict[Part, list[Reason]] = field(default_factory=dict)
    unneeded: dict[Part, list[Reason]] = field(default_factory=dict)
    refused: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    run: Run = field(default_factory=Run)
    exact: bool = False
    rounds: int = 0
    pools: int = 0

    @property
    def proven(self) -> bool:
        """Under the proposal every call ended well in an ordinary pool."""
        return not self.run.failure and all(not ended.code for ended in self.run.ended)
