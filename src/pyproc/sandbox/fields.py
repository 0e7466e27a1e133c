"""Typed reading of one JSON document: a value of a wrong type, an unknown key, a repeated key are refused with their place.

Rules and reasons:
* Surplus is refused too: a misspelt "args" would allow a call with every argument.
* `null` is an absent value, as the Go programs that write these files have it.
* A place is written as in "syscalls[3] args[0]". The text of a refusal is one line whatever the file holds (`!r`), and
  cut, so that a file cannot fill a log.
* Rejected: a JSON schema (a dependency, and its messages name no remedy).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pyproc.sandbox.rules import ProfileError

SHOWN_MAX = 120  # characters of a value in a message


def refuse(text: str, cause: BaseException | None = None) -> NoReturn:
    raise ProfileError(text) from cause


def shown(value: object) -> str:
    """A value for a message: one line, cut."""
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def document(text: str | bytes) -> Any:
    """The JSON value of `text`. A number of thousands of digits and a nesting of thousands of lists are refused too."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except ProfileError:
        raise
    except (ValueError, RecursionError) as bad:
        refuse(f"profile is not JSON ({bad}): write it in OCI seccomp format", bad)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            refuse(f"profile repeats a key: {shown(key)} is given as {shown(found[key])} and as {shown(value)}, write it once")
        found[key] = value
    return found


def require_keys(value: object, known: frozenset[str], where: str) -> None:
    if not isinstance(value, dict):
        refuse(f"{where} is {shown(value)}: write an object with some of {', '.join(sorted(known))}")
    if surplus := sorted(set(value) - known):
        refuse(f"{where} has unknown key {shown(surplus[0])}: known are {', '.join(sorted(known))}")


def listed(entry: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = entry.get(key)
    if value is not None and not isinstance(value, list):
        refuse(f"{where} {key} is {shown(value)}: write a list")
    return value or []


def texts(entry: Mapping[str, Any], key: str, where: str) -> list[str]:
    values = listed(entry, key, where)
    if bad := [v for v in values if not isinstance(v, str) or not v]:
        refuse(f"{where} {key} holds {shown(bad[0])}: write names")
    return values


def text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        refuse(f"{where} {key} is {shown(value)}: write a text")
    return value or ""


def integer(entry: Mapping[str, Any], key: str, limit: int, where: str, default: int | None = None) -> int:
    value = entry.get(key)
    value = default if value is None else value
    if type(value) is not int or not 0 <= value <= limit:
        refuse(f"{where} {key} is {shown(value)}: write an integer from 0 to {limit}")
    return value
