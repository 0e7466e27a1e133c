"""What a run of the corpus has shown, for people and as one document.

    Results (call, import, control) -> Report(...) -> rows, one for each attack -> document()

Each attack ends in one verdict. `escaped`: it got what it wanted, in a call or at import. `open`: it did, and none of the
layers that stop it is in force here, as those that are missing or off are known. `granted`: it did, and the profile
says why workers have that right. `unproven`: it was stopped, and its control failed here, so that nothing is shown.
`stopped`: it was stopped, and its control worked or says why it cannot be run on a plain machine. `unfit`: not for this
architecture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pyproc.attack.corpus import Attack
from pyproc.attack.run import Result

VERDICTS = ("stopped", "granted", "unproven", "open", "escaped", "unfit")
UNDONE = ("dumpable", "parent_death")  # what a process can take back from itself by prctl, where no filter refuses it
FAILING = frozenset({"open", "escaped", "unproven"})


@dataclass(frozen=True, slots=True)
class Row:
    """One attack: `answers` by where it ran (call, import, control), `proof`: what its control shows, or why there is none."""

    attack: Attack
    answers: Mapping[str, str]
    verdict: str
    proof: str


class Report:
    """`profile`: under which the corpus ran; `controls`: whether controls were run; `lacking`: layer -> off or missing."""

    def __init__(self, attacks: Iterable[Attack], results: Iterable[Result], *, profile: str, controls: bool = True,
                 lacking: Mapping[str, str] = MappingProxyType({})) -> None:
        found: dict[str, dict[str, Result]] = {}
        for result in results:
            found.setdefault(result.id, {})[result.where] = result
        if "seccomp" in lacking:
            lacking = {**dict.fromkeys(UNDONE, "undone without seccomp"), **lacking}
        self.rows = [_row(attack, found.get(attack.id, {}), profile, lacking, controls=controls) for attack in attacks]

    @property
    def verdicts(self) -> Counter[str]:
        """Verdict -> attacks."""
        return Counter(row.verdict for row in self.rows)

    @property
    def holds(self) -> bool:
        """Whether the sandbox stopped everything, and the controls prove it."""
        return not any(row.verdict in FAILING for row in self.rows)

    @property
    def kinds(self) -> dict[str, Counter[str]]:
        """Class of attack -> verdict -> attacks."""
        kinds: dict[str, Counter[str]] = {}
        for row in self.rows:
            kinds.setdefault(row.attack.kind, Counter())[row.verdict] += 1
        return kinds

    def document(self) -> list[dict[str, Any]]:
        """The rows as plain values."""
        return [{"id": row.attack.id, "title": row.attack.title, "layers": list(row.attack.layers), "verdict": row.verdict,
                 "proof": row.proof, "answers": dict(row.answers)} for row in self.rows]


def _row(attack: Attack, results: Mapping[str, Result], profile: str, lacking: Mapping[str, str], *,
         controls: bool) -> Row:
    answers = {where: result.answer for where, result in results.items()}
    if not attack.fits_this_machine:
        return Row(attack, answers, "unfit", f"for {', '.join(attack.machines)}")
    inside = [result for where, result in results.items() if where != "control"]
    proof, proven = _proof(attack, results.get("control"), controls=controls)
    if any(result.escaped for result in inside):
        granted = attack.granted.get(profile)
        if granted is None and all(layer in lacking for layer in attack.layers):
            names = ", ".join(f"{layer} is {lacking[layer]}" for layer in attack.layers)
            return Row(attack, answers, "open", f"nothing that stops it is in force: {names}")
        return Row(attack, answers, "escaped" if granted is None else "granted", granted or proof)
    return Row(attack, answers, "stopped" if proven and inside else "unproven", proof)


def _proof(attack: Attack, control: Result | None, *, controls: bool) -> tuple[str, bool]:
    if not attack.has_control:
        return f"no control: {attack.control}", True
    if not controls:
        return "its control was not asked for", True
    if control is None or not control.escaped:
        return f"its control failed: {'it was not run' if control is None else control.answer}", False
    return "its control works without a sandbox", True
