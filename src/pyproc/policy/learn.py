"""What does this worker need? Runs its calls again and again in throw-away pools, until nothing more is asked for that may be given.

    present policy ─▶ observe ─▶ what was refused ─▶ the smallest changes (sandbox.explain) ─▶ observe again … until nothing is new
                   ─▶ an ordinary pool with all of it: do the calls end as observed?
                   ─▶ an ordinary pool without each part: if they end the same, that part is not needed ─▶ Lesson

Rules and reasons:
* Files are never let through: a path that was asked for is listed for the next round, if it may be shown at all
  (policy.withheld). So a worker sees during learning what the policy would show it and nothing else.
* A part of the proposal is there because the calls end otherwise without it, in an ordinary pool. Asking is not needing:
  programs look at many files which they do without.
* A limit that was met is doubled until it is not: the proposal is at most twice what is needed, which leaves some room.
* Rejected: one run in a sandbox that shows all files read-only (ADR 0010).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from pyproc.config.options import Limits, Sandbox
from pyproc.errors import ConfigError, NotFound
from pyproc.policy import survey, withheld
from pyproc.policy.lesson import Extra, Lesson, Part, Reason, State
from pyproc.policy.observe import SEEN_MAX, WIDER, Call, Run, observe, ordinary
from pyproc.sandbox import acts, profile
from pyproc.sandbox.acts import Act
from pyproc.sandbox.denial import limit_text
from pyproc.sandbox.explain import answer, judge
from pyproc.sandbox.oci_export import to_oci
from pyproc.sandbox.paths import View, look_here
from pyproc.sandbox.rules import ALLOW, U32, Condition, Profile, Rule, syscall_table
from pyproc.sandbox.verdict import Change, Policy
from pyproc.supervisor.spec import WorkerSpec

ROUNDS_MAX: Final = 32  # a worker that opens one file after another shows one in each round
DOUBLINGS_MAX: Final = 6  # of a limit: 64 times the present one
FEW: Final = 8  # parts that are tried one by one; more are halved, as most of many are not needed
COLLAPSE: Final = 32  # files of one folder, beyond which the folder is listed
PINNED: Final = {
    "fcntl": (1,), "ioctl": (1,), "socket": (0, 1, 2), "socketpair": (0, 1, 2), "setsockopt": (1, 2), "getsockopt": (1, 2), "flock": (),
    "getpriority": (0, 1),
}
"""Arguments that choose what a call does: a rule for it has them as they were observed, and no other."""


class Learner:
    """One `learn`. `tell` hears of each step."""

    def __init__(self, spec: WorkerSpec, calls: Sequence[Call], timeout: float, tell: Callable[[str], None]) -> None:
        self._spec, self._calls, self._timeout, self._tell = spec, calls, timeout, tell
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="pyproc-learn-")
        except OSError as error:
            raise ConfigError(f"no temporary folder can be made: {error.strerror}; name one with room by TMPDIR") from error
        self._reasons: dict[Part, dict[Reason, None]] = {}
        self._refused: dict[str, tuple[str, dict[str, None]]] = {}
        self._pools = 0

    def learn(self, profile_path: str) -> Lesson:
        """`profile_path`: where a profile of one's own will stand. Raises ConfigError, for a script that no policy makes loadable too,
        ProtectionUnavailable, and NotFound for a function that is not there."""
        with self._folder:
            state, rounds = self._ask()
            goal = self._ordinary(state)
            if goal.failure and not state.parts and not self._refused:  # nothing that a policy could mend
                raise ConfigError(goal.failure)
            again = self._ordinary(state)
            exact = goal.ended == again.ended
            self._tell(f"{len(state.parts)} parts were asked for; trying without each")

            def good(run: Run) -> bool:
                return _same(run, goal, exact=exact)

            kept = self._lowered(self._needed(state, good), good)
            final = self._ordinary(kept) if kept != state else goal
            return self._lesson(kept, state, final, exact=exact, rounds=rounds, path=profile_path)

    def _ask(self) -> tuple[State, int]:
        """Rounds of observation, until nothing new is asked for."""
        state = State()
        for number in range(1, ROUNDS_MAX + 1):
            self._tell(f"round {number}: {len(state.parts)} parts")
            spec = self._with(state)
            self._pools += 1
            run = observe(spec, self._calls, self._timeout)
            for ended in run.ended:
                if ended.code == NotFound.code:
                    raise NotFound(ended.text)
            self._refused.clear()  # what the round before was refused may be allowed now
            policy, wanted = survey.in_force(spec), state
            for part in self._wants(run, policy):
                wanted = wanted.plus(part)
            wanted = _collapsed(wanted, policy.view)
            for part in wanted.parts:
                self._reasons.setdefault(part, {Reason("", f"more than {COLLAPSE} files of it"): None})
            if run.overflow:
                self._refused["more"] = (f"a run asked for more than {SEEN_MAX} things, the rest is not learnt; make fewer calls", {})
            if wanted == state:
                return state, number
            state = wanted
        return state, ROUNDS_MAX

    def _wants(self, run: Run, policy: Policy) -> list[Part]:
        found: list[Part] = []
        for seen in run.seen:
            reason = Reason(seen.where, acts.said(seen.act) if seen.act.kind != "call" else seen.call)
            for part in self._parts(policy, seen.act, reason):
                self._reasons.setdefault(part, {}).setdefault(reason)
                found.append(part)
        for where, change in run.changes:
            reason = Reason(where, "met its limit" if "limits" in change.key else "import")
            if self._may_raise(change) and not self._withheld((change,), policy, reason):
                self._reasons.setdefault(change, {}).setdefault(reason)
                found.append(change)
        return found

    def _parts(self, policy: Policy, act: Act, reason: Reason) -> tuple[Part, ...]:
        if not act.path.isprintable():
            return ()
        verdict = judge(policy, act, look_here)
        if verdict.allowed or (act.path and not act.writes and look_here(act.path) is None):
            return ()
        if any(change.value == "FILE" for change in verdict.changes):
            extras = _extras(policy, act)
            if extras:
                return extras
        changes = tuple(change for change in verdict.changes if change.value != "FILE")
        if not changes:
            self._refuse(reason, verdict.why_none or verdict.why)
        return () if self._withheld(changes, policy, reason) else changes

    def _withheld(self, changes: Sequence[Change], policy: Policy, reason: Reason) -> bool:
        """Whether one of the paths that are listed together is not to be shown, which is then told."""
        paths = (str(change.value) for change in changes if change.key == "sandbox.read")
        why = next(filter(None, (withheld.reason(path, policy.view) for path in paths)), "")
        if why:
            self._refuse(reason, why)
        return bool(why)

    def _refuse(self, reason: Reason, why: str) -> None:
        self._refused.setdefault(reason.what, (why, {}))[1].setdefault(reason.where)

    def _may_raise(self, change: Change) -> bool:
        """A limit that was met, within its doublings; or the script's own folder."""
        if change.key == "sandbox.read":
            return change.value == os.path.dirname(self._spec.script)
        if change.key == "sandbox.scratch":
            present = self._spec.sandbox.scratch or 64 << 20
            return Sandbox("default", scratch=change.value).scratch in [present << n for n in range(DOUBLINGS_MAX + 1)]
        name = change.key.removeprefix("limits.")
        options: dict[str, Any] = {name: change.value}
        raised = getattr(Limits(**options), name)
        return bool(raised <= getattr(self._spec.limits, name) * 2**DOUBLINGS_MAX)

    def _needed(self, state: State, good: Callable[[Run], bool]) -> State:
        """`state` without the parts that can be left out, the profile last: a scratch needs another one than strict."""
        order = sorted(state.parts, key=lambda part: isinstance(part, Change) and part.key == "sandbox.profile")

        def kept(now: State, candidates: list[Part]) -> State:
            without = now.without(candidates)
            if self._still(without, good):
                return without
            if len(candidates) < 2:
                return now
            middle = len(candidates) // 2
            return kept(kept(now, candidates[:middle]), candidates[middle:])

        for group in [[part] for part in order] if len(order) <= FEW else [order]:
            state = kept(state, group)
        return state

    def _lowered(self, state: State, good: Callable[[Run], bool]) -> State:
        """`state` with each raised limit halved as often as the calls end well: several are doubled in one round."""
        for part in state.parts:
            half = self._half(part)
            while half is not None and self._still(state.plus(half), good):
                self._reasons[half] = self._reasons.get(part, {})
                state, half = state.plus(half), self._half(half)
        return state

    def _half(self, part: Part) -> Change | None:
        """A limit with half the value, if that is more than the present one."""
        if not isinstance(part, Change) or not part.key.startswith("limits."):
            return None
        name = part.key.removeprefix("limits.")
        options: dict[str, Any] = {name: part.value}
        value = getattr(Limits(**options), name) / 2
        if value <= getattr(self._spec.limits, name):
            return None
        return Change(part.key, limit_text(name, value))

    def _still(self, state: State, good: Callable[[Run], bool]) -> bool:
        try:
            return good(self._ordinary(state))
        except ConfigError:  # a scratch under strict
            return False

    def _ordinary(self, state: State) -> Run:
        self._pools += 1
        return ordinary(self._with(state), self._calls, self._timeout)

    def _with(self, state: State) -> WorkerSpec:
        """The specification with the parts of `state`. Raises ConfigError."""
        path = os.path.join(self._folder.name, "profile.json")
        if state.extras:
            with open(path, "w", encoding="ascii") as file:
                file.write(to_oci(self._own_profile(state)))
        return _applied(self._spec, state, path)

    def _own_profile(self, state: State) -> Profile:
        base = profile.named(_base(self._spec, state))
        number = syscall_table(base.machine)
        rules = tuple(Rule(e.name, number[e.name], ALLOW, e.conditions, f"learnt: {e.reason}") for e in state.extras)
        return replace(base, rules=_among(base.rules, rules))

    def _lesson(self, kept: State, asked: State, run: Run, *, exact: bool, rounds: int, path: str) -> Lesson:
        lesson = Lesson(self._spec, _applied(self._spec, kept, path), run=run, exact=exact, rounds=rounds, pools=self._pools)
        if kept.extras:
            lesson.own_profile = to_oci(self._own_profile(kept))
            lesson.base_profile = to_oci(profile.named(_base(self._spec, kept)))
        keys = {part.key for part in kept.parts if isinstance(part, Change) and part.key != "sandbox.read"}
        for part in kept.parts:
            lesson.needed[part] = list(self._reasons.get(part, {}))
        for part in asked.parts:
            if part not in kept.parts and not (isinstance(part, Change) and part.key in keys):  # else it was only lowered
                lesson.unneeded[part] = list(self._reasons.get(part, {}))
        lesson.refused = {what: (why, list(where)) for what, (why, where) in self._refused.items()}
        return lesson


def _among(rules: tuple[Rule, ...], new: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Each new rule before those of its call, as the first that holds decides; else at the end."""
    made = list(rules)
    for rule in new:
        made.insert(next((at for at, other in enumerate(made) if other.name == rule.name), len(made)), rule)
    return tuple(made)


def _base(spec: WorkerSpec, state: State) -> str:
    """The profile that is named, before system calls are added."""
    named = [part.value for part in state.parts if isinstance(part, Change) and part.key == "sandbox.profile"]
    return str(named[0]) if named else spec.sandbox.profile


def _applied(spec: WorkerSpec, state: State, own_profile: str) -> WorkerSpec:
    """`spec` with the parts of `state`. Raises ConfigError."""
    sandbox, limits = spec.sandbox, spec.limits
    changes = [part for part in state.parts if isinstance(part, Change)]
    chosen: dict[str, Any] = {change.key: change.value for change in changes if change.key != "sandbox.read"}
    name = own_profile if state.extras else _base(spec, state)
    made = Sandbox(name, read=(*sandbox.read, *(str(c.value) for c in changes if c.key == "sandbox.read")),
                   scratch=chosen.get("sandbox.scratch", sandbox.scratch), layers=sandbox.layers)
    values = {key: chosen.get(f"limits.{key}", getattr(limits, key)) for key in Limits.__slots__}
    return replace(spec, sandbox=made, limits=Limits(**values))


def _extras(policy: Policy, act: Act) -> tuple[Extra, ...]:
    """The rules that would let the calls behind an act through, if all of them may be let through; else none."""
    table = syscall_table(policy.filters[0].machine)
    found: list[Extra] = []
    for call in acts.system_calls(act):
        name = next((n for n in call.names if n in table), "")
        if not name or answer(policy, name, call.arguments).errno == 0:
            continue
        extra = _extra(name, call.arguments, policy.filters[0].machine)
        if extra is None:
            return ()
        found.append(extra)
    return tuple(found)


def _extra(name: str, arguments: tuple[int, ...], machine: str) -> Extra | None:
    """The rule by which profile `default` allows a call, or one of our own for a call of WIDER."""
    six = (*arguments, *[0] * 6)
    for rule in profile.shipped("default", machine=machine).rules:
        if rule.name == name and all(c.holds(six) for c in rule.conditions):
            if rule.action == ALLOW:
                return Extra(name, rule.conditions, rule.reason)
            break
    if name not in WIDER:
        return None
    pins = (Condition(index, "SCMP_CMP_EQ", six[index] & U32, width=32) for index in PINNED.get(name, ()))
    return Extra(name, tuple(pins), WIDER[name])


def _same(run: Run, goal: Run, *, exact: bool) -> bool:
    if run.failure or goal.failure:
        return bool(run.failure) == bool(goal.failure) and not goal.ended
    return run.ended == goal.ended if exact else [e.kind for e in run.ended] == [e.kind for e in goal.ended]


def _collapsed(state: State, view: View) -> State:
    """Many files of one folder are listed as the folder, if that may be shown."""
    files: dict[str, list[Part]] = {}
    for part in state.parts:
        if isinstance(part, Change) and part.key == "sandbox.read":
            files.setdefault(os.path.dirname(str(part.value)), []).append(part)
    for folder, parts in files.items():
        if len(parts) > COLLAPSE and not withheld.reason(folder, view):
            state = state.without(parts).plus(Change("sandbox.read", folder))
    return state
