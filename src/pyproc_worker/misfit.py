"""Why a body does not fit its type, in words for the caller: where, what stands there, and what may.

msgspec's own words name neither the value nor what is possible, and a map's key is `[...]` in its paths. The true key is found
by converting ever smaller halves of that map. Only a refused body pays for any of it.

A value is repeated where it is a number, a bool or the start of a text: the caller has sent it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import ValidationError

from pyproc_wire.errors import printable, step

NEVER_FROM_TEXT: Final = (bytes, bytearray, memoryview)
"""Types that msgspec would read from base64 text if they were not named here."""

SEARCHED_KEYS: Final = 4096
"""Keys of a map in which the offending one is looked for; a refusal must not cost more than a call."""

SHOWN_CHARS: Final = 40
"""Of a text that does not fit."""

NAMED_MAX: Final = 10
"""Possible values or keys that are named."""

TEXT_CHARS: Final = 500
"""Of the whole; ten names and a value fit."""

_PLACE: Final = re.compile(r" - at (?P<key>`key` in )?`(?P<path>\$.*)`\Z", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<key>\[\.\.\.\])")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_ENUM: Final = re.compile(r"Invalid enum value .*\Z", re.DOTALL)
_BYTES: Final = "Expected `bytes`, got `str`"

Schema = dict[str, Any]


class InvalidBody(Exception):
    """The body does not fit the function. `.text` ends with `at PATH`; `.path` is `$.rows[2].width`.

    `.cause` is the exception of a type's own check (`__post_init__`), whose text is not for the caller.
    """

    def __init__(self, why: str, path: str, cause: BaseException | None = None) -> None:
        self.text = f"{why} at {path}"
        self.path = path
        self.cause = cause
        super().__init__(self.text)


class _Place(NamedTuple):
    """`path` as it is told, `keys` to it, and the value there; `sure`: the whole of msgspec's path was followed."""

    path: str
    keys: tuple[Any, ...]
    value: Any
    sure: bool


def misfit(body: Any, kind: Any, error: ValidationError, schema: Callable[[], Schema]) -> InvalidBody:
    """The refusal of `body`, of which msgspec says that it is no `kind`; `schema` is that of `kind`."""
    text = str(error)
    found = _PLACE.search(text)
    why = text if found is None else text[: found.start()]
    place = _Place("$", (), body, sure=True) if found is None else _followed(body, kind, found["path"], text)
    if error.__cause__ is not None:
        return InvalidBody("value is refused by its type", place.path, error.__cause__)
    missing, unknown = _MISSING.match(why), _UNKNOWN.match(why)
    if (missing or unknown) and place.sure and not isinstance(place.value, dict):
        return InvalidBody(f"expected `object`, got `{_type_name(place.value)}`", place.path)  # msgspec takes an array for a map
    if missing:
        return InvalidBody("key is missing", place.path + step(missing[1]))
    if unknown:
        known = (key for part in _parts(schema(), place.keys) for key in part.get("properties", ()))
        return InvalidBody(f"key is unknown{_named('known', known)}", place.path + step(unknown[1]))
    if _ENUM.match(why):
        allowed = (repr(value) for part in _parts(schema(), place.keys) for value in part.get("enum", ()))
        why += _named("allowed", allowed)
    elif found is not None and found["key"]:
        why = f"{_with_value(why, _odd_key(place))} as a key"
    elif why == _BYTES:
        why = f"Expected `bytes`, which JSON does not carry, got `str`{_shown(place.value)}"
    elif place.sure:
        why = _with_value(why, place.value)
    return InvalidBody(printable(why[:1].lower() + why[1:], TEXT_CHARS), place.path)


def _named(word: str, names: Iterator[str]) -> str:
    every = list(dict.fromkeys(names))
    more = ", …" if len(every) > NAMED_MAX else ""
    return f" ({word}: {', '.join(every[:NAMED_MAX])}{more})" if every else ""


def _with_value(why: str, value: Any) -> str:
    shown = _shown(value)
    if not shown:
        return why
    return f"{why}{shown}" if ", got `" in why else f"{why}, got `{_type_name(value)}`{shown}"


def _shown(value: Any) -> str:
    if type(value) in (bool, int, float):
        return f" {value!r}"
    if not isinstance(value, str):
        return ""
    return f" {value[:SHOWN_CHARS]!r}{'…' if len(value) > SHOWN_CHARS else ''}"


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _odd_key(place: _Place) -> Any:
    """A key that is no text, where there is one: what is asked of keys most often."""
    if not place.sure or not isinstance(place.value, dict):
        return None
    return next((key for key in place.value if type(key) is not str), None)


def _parts(schema: Schema, keys: tuple[Any, ...]) -> list[Schema]:
    """What a schema says of the value at `keys`: one part for each type that it may be."""
    parts = _options(schema, schema)
    for key in keys:
        parts = [option for part in parts for option in _options(_beneath(part, key), schema)]
    return parts


def _options(part: Any, root: Schema) -> list[Schema]:
    if not isinstance(part, dict):
        return []
    if "$ref" in part:
        return _options(root.get("$defs", {}).get(part["$ref"].removeprefix("#/$defs/")), root)
    return [option for inner in part.get("anyOf", ()) for option in _options(inner, root)] or [part]


def _beneath(part: Schema, key: Any) -> Any:
    if isinstance(key, int):
        first = part.get("prefixItems", ())
        return first[key] if key < len(first) else part.get("items")
    return part.get("properties", {}).get(key) or part.get("additionalProperties")


def _followed(body: Any, kind: Any, path: str, text: str) -> _Place:
    """msgspec's `path` with the real key in the place of each `[...]`; cut before one that cannot be found."""
    shown, at, keys = "$", body, list[Any]()
    rebuild: Callable[[Any], Any] = lambda value: value  # noqa: E731 - grows by one level a step
    position = 1
    while position < len(path):
        found = _STEP.match(path, position)
        if found is None:
            return _Place(shown, tuple(keys), at, sure=False)
        position = found.end()
        key: Any = found["name"]
        if found["index"] is not None:
            key = int(found["index"])
        elif found["key"] is not None:
            if type(at) is not dict or len(at) > SEARCHED_KEYS:
                return _Place(shown, tuple(keys), at, sure=False)
            key = _bad_key(at, rebuild, kind, text)
            if key is None:
                return _Place(shown, tuple(keys), at, sure=False)
        try:
            inner = at[key]
        except (TypeError, LookupError):
            return _Place(shown, tuple(keys), at, sure=False)
        rebuild = _within(rebuild, at, key)
        at = inner
        keys.append(key)
        shown += f"[{key}]" if found["index"] is not None else step(key)
    return _Place(shown, tuple(keys), at, sure=True)


def _within(rebuild: Callable[[Any], Any], container: Any, key: Any) -> Callable[[Any], Any]:
    def inner(value: Any) -> Any:
        copy = dict(container) if type(container) is dict else list(container)
        copy[key] = value
        return rebuild(copy)

    return inner


def _bad_key(entries: dict[Any, Any], rebuild: Callable[[Any], Any], kind: Any, text: str) -> Any:
    """The first key whose value is refused with `text`: halves are tried, as the first refusal is the one told."""

    def refused(keys: list[Any]) -> bool:
        try:
            msgspec.convert(rebuild({key: entries[key] for key in keys}), kind, builtin_types=NEVER_FROM_TEXT)
        except ValidationError as error:
            return str(error) == text
        return False

    keys = list(entries)
    while len(keys) > 1:
        half = len(keys) // 2
        keys = keys[:half] if refused(keys[:half]) else keys[half:]
    return keys[0] if keys and refused(keys) else None
