"""A lesson in words: the keys as a unified diff, each with where it was needed; the file that would serve; JSON. Pure.

Keys are written in one order and one form on both sides, so that the diff shows what is decided and not how it was typed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyproc.config.model import PLAIN
from pyproc.config.options import Limits, Sandbox
from pyproc.policy.lesson import Extra, Lesson, Part, Reason
from pyproc.sandbox.denial import limit_text, size_text
from pyproc.sandbox.explain import spelled
from pyproc.sandbox.verdict import Change

SHOWN: Final = 3  # reasons of one part in the text; all are in the JSON document


def keys(name: str, sandbox: Sandbox, limits: Limits) -> str:
    """The tables [pools.NAME.sandbox] and [pools.NAME.limits] of pyproc.toml; limits that are the defaults are left out."""
    name = _key(name)
    lines = [f"[pools.{name}.sandbox]", f"profile = {_value(sandbox.profile)}"]
    if sandbox.read:
        lines += ["read = [", *(f"  {_value(path)}," for path in sandbox.read), "]"]
    if sandbox.scratch:
        lines.append(f"scratch = {_value(size_text(sandbox.scratch))}")
    if sandbox.layers:
        lines.append(f"layers = {_value(sandbox.layers)}")
    usual = Limits()
    changed = [key for key in sorted(Limits.__slots__) if getattr(limits, key) != getattr(usual, key)]
    if changed:
        lines += [f"[pools.{name}.limits]", *(f"{key} = {_limit(key, getattr(limits, key))}" for key in changed)]
    return "\n".join(lines) + "\n"


def file(lesson: Lesson, options: Mapping[str, Any]) -> str:
    """A whole pyproc.toml of the one pool: `options` are its plain keys as they were given."""
    spec = lesson.proposed
    plain = {"script": spec.script, **{key: value for key, value in options.items() if key in PLAIN}}
    head = "".join(f"{key} = {_value(value)}\n" for key, value in plain.items())
    return f"[pools.{_key(spec.name)}]\n{head}{keys(spec.name, spec.sandbox, spec.limits)}"


def diff(lesson: Lesson, source: str) -> str:
    """The keys and, where there is one, the profile of one's own against what it is based on; "" where nothing changes."""
    old, new = (keys(spec.name, spec.sandbox, spec.limits) for spec in (lesson.present, lesson.proposed))
    text = _unified(old, new, source, "proposed")
    if lesson.own_profile:
        text += _unified(lesson.base_profile, lesson.own_profile, "profile", lesson.proposed.sandbox.profile)
    return text


def document(lesson: Lesson, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON."""
    return {
        "proven": lesson.proven, "results_compared": lesson.exact, "rounds": lesson.rounds, "pools": lesson.pools,
        "diff": diff(lesson, source), "toml": file(lesson, options),
        "profile": json.loads(lesson.own_profile) if lesson.own_profile else None,
        "needed": [_part(part, reasons) for part, reasons in lesson.needed.items()],
        "unneeded": [_part(part, reasons) for part, reasons in lesson.unneeded.items()],
        "refused": [{"what": what, "why": why, "where": where} for what, (why, where) in lesson.refused.items()],
        "calls": [{"method": e.method, "code": e.code or None, "reason": e.reason or None} for e in lesson.run.ended],
        "failure": lesson.run.failure or None,
    }


def text(lesson: Lesson, source: str) -> str:
    """For people."""
    lines = [diff(lesson, source).rstrip("\n") or "nothing needs to change", ""]
    for title, parts in (("needed", lesson.needed), ("asked for, and the calls end the same without it", lesson.unneeded)):
        for part, reasons in parts.items():
            lines.append(f"{title}: {part}")
            lines += [f"    {reason.where}: {reason.what}" for reason in reasons[:SHOWN]]
            lines += [f"    and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    for what, (why, where) in lesson.refused.items():
        lines.append(f"not proposed: {what} ({', '.join(where[:SHOWN])}): {why}")
    for ended in lesson.run.ended:
        if ended.code:
            lines.append(f"call {ended.method} does not end well under the proposal: {ended.text}")
    if lesson.run.failure:
        lines.append(f"under the proposal the pool does not start: {lesson.run.failure}")
    shown = "with the same results" if lesson.exact else "by their outcome; results differ from run to run and were not compared"
    calls = "no call could be made" if lesson.run.failure else f"{_count(len(lesson.run.ended), 'call')}, {shown}"
    lines.append(f"{'proven' if lesson.proven else 'NOT proven'}: {calls}; "
                 f"{_count(lesson.rounds, 'round')} of observation, {_count(lesson.pools, 'pool')} in all")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _part(part: Part, reasons: Sequence[Reason]) -> dict[str, Any]:
    where = [{"where": reason.where, "what": reason.what} for reason in reasons]
    if isinstance(part, Extra):
        return {"system_call": part.name, "where": [spelled(c) for c in part.conditions], "reasons": where}
    assert isinstance(part, Change)  # noqa: S101 - the only other kind
    return {"key": part.key, "value": part.value, "reasons": where}


def _unified(old: str, new: str, source: str, target: str) -> str:
    return "".join(difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), source, target))


def _limit(key: str, value: Any) -> str:
    return _value(value if key == "cpus" else limit_text(key, value))


def _key(name: str) -> str:
    """A key, quoted unless it may stand bare."""
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else _value(name)


def _value(value: Any) -> str:
    """One TOML value; texts are written as JSON does, which TOML reads the same but for DEL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(_value(item) for item in value) + "]"
