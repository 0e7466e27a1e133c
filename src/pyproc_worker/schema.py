"""What a signature asks of a body: the check that fills its parameters, and the JSON Schema that says the same.

Everything is worked out once, when a function is exposed: a Struct with one field for each parameter, compiled by
msgspec. A call then costs one conversion. The body was decoded before, as it is: dates, UUIDs, decimals, sets and
arrays, which travel as extensions, are already what they were. From a JSON caller a date, time, UUID or decimal is
text and is parsed where the annotation asks for one; text is never taken for bytes, because the same text from a
MessagePack caller would silently become something else.

msgspec names a map's key `[...]` in its paths. The true key is found by converting ever smaller halves of that map:
only a refused body pays for it.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any, Final

import msgspec
from msgspec import ValidationError, structs

from pyproc_wire.errors import printable, step

NEVER_FROM_TEXT: Final = (bytes, bytearray, memoryview)
"""Types that msgspec would read from base64 text if they were not named here."""

SEARCHED_KEYS: Final = 4096
"""Keys of a map in which the offending one is looked for; a refusal must not cost more than a call."""

_PLACE: Final = re.compile(r" - at (?:`key` in )?`(\$.*)`\Z", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<key>\[\.\.\.\])")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)

Check = Callable[[Any], Any]


class InvalidBody(Exception):
    """The body does not fit the function. `.text` ends with `at PATH`; `.path` is `$.rows[2].width`.

    `.cause` is the exception of a type's own check (`__post_init__`), whose text is not for the caller.
    """

    def __init__(self, why: str, path: str, cause: BaseException | None = None) -> None:
        self.text = f"{why} at {path}"
        self.path = path
        self.cause = cause
        super().__init__(self.text)


def whole_check(annotation: Any) -> Check | None:
    """The check of a parameter that takes the whole body; None if it takes anything."""
    if annotation is Any or annotation is object:
        return None
    return _check(annotation)


def keys_check(name: str, parameters: list[Parameter], hints: dict[str, Any]) -> tuple[Check, type]:
    """The check of a body whose keys are parameters, and the Struct behind it: `check(body)` -> values in order."""
    struct = _struct_of(name, parameters, hints)
    convert = _check(struct)
    values = structs.astuple

    def check(body: Any) -> tuple[Any, ...]:
        return values(convert({} if body is None else body))

    return check, struct


def _struct_of(name: str, parameters: list[Parameter], hints: dict[str, Any]) -> type:
    """Fields have names of our own, so that a parameter may be called whatever Python allows."""
    fields = []
    for index, parameter in enumerate(parameters):
        default = parameter.default
        if default is Parameter.empty:
            field = msgspec.field(name=parameter.name)
        elif type(default) in (type(None), bool, int, float, str):
            field = msgspec.field(default=default, name=parameter.name)
        else:
            field = msgspec.field(default_factory=_same(default), name=parameter.name)
        fields.append((f"f{index}", hints.get(parameter.name, Any), field))
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def _same(default: Any) -> Callable[[], Any]:
    """A default for each call. A container is copied: what one caller left in it is not for the next."""
    if type(default) in (list, dict, set, bytearray):
        return lambda: type(default)(default)
    return lambda: default


def _check(kind: Any) -> Check:
    convert = msgspec.convert
    if not _holds_bytes(kind):

        def check(body: Any) -> Any:
            try:
                return convert(body, kind)  # half a microsecond less than with builtin_types
            except ValidationError as error:
                raise _invalid(body, kind, error) from None

    else:

        def check(body: Any) -> Any:
            try:
                return convert(body, kind, builtin_types=NEVER_FROM_TEXT)
            except ValidationError as error:
                raise _invalid(body, kind, error) from None

    try:
        convert(None, kind)  # compiles the check, or says why it cannot
    except ValidationError:
        pass
    return check


def _holds_bytes(kind: Any) -> bool:
    """Whether somewhere in the type text could be taken for bytes: JSON Schema says so where it is."""
    return b'"contentEncoding"' in msgspec.json.encode(_schema(kind, _named_schema))


def _invalid(body: Any, kind: Any, error: ValidationError) -> InvalidBody:
    text = str(error)
    place = _PLACE.search(text)
    path, why = "$", text
    if place is not None:
        why = text[: place.start()]
        path = _true_path(body, kind, place[1], text)
    if error.__cause__ is not None:
        return InvalidBody("value is refused by its type", path, error.__cause__)
    for pattern, said in ((_MISSING, "key is missing"), (_UNKNOWN, "key is unknown")):
        found = pattern.match(why)
        if found is not None:
            return InvalidBody(said, path + step(found[1]))
    return InvalidBody(printable(why[:1].lower() + why[1:]), path)


def _true_path(body: Any, kind: Any, path: str, text: str) -> str:
    """msgspec's `path` with the real key in the place of each `[...]`; cut before one that cannot be found."""
    shown, at = "$", body
    rebuild: Callable[[Any], Any] = lambda value: value  # noqa: E731 - grows by one level a step
    position = 1
    while position < len(path):
        found = _STEP.match(path, position)
        if found is None:
            return shown
        position = found.end()
        key: Any = found["name"]
        if found["index"] is not None:
            key = int(found["index"])
        elif found["key"] is not None:
            if type(at) is not dict or len(at) > SEARCHED_KEYS:
                return shown
            key = _bad_key(at, rebuild, kind, text)
            if key is None:
                return shown
        try:
            inner = at[key]
        except (TypeError, LookupError):
            return shown
        rebuild = _within(rebuild, at, key)
        at = inner
        shown += f"[{key}]" if found["index"] is not None else step(key)
    return shown


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


def input_schema(kind: Any) -> dict[str, Any]:
    """JSON Schema of a body. Raises TypeError for a type that no body can be."""
    return _schema(kind, _carried_schema)


def output_schema(kind: Any, *, streams: bool) -> dict[str, Any]:
    """JSON Schema of a result, of one part for a stream; `{}` where the annotation says nothing that JSON Schema can."""
    if streams:
        arguments = typing.get_args(kind)
        kind = arguments[0] if arguments else Any
    try:
        return _schema(kind, _named_schema)
    except (TypeError, ValueError, RuntimeError):
        return {}


def _schema(kind: Any, hook: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    if kind is Any or kind is object:
        return {}
    (schema,), components = msgspec.json.schema_components((kind,), schema_hook=hook, ref_template="#/$defs/{name}")
    if not components:
        return schema
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if schema.keys() == {"$ref"} and schema["$ref"] not in set(_references(components)):
        schema = components.pop(name)
    return {**schema, "$defs": components} if components else schema


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


def _carried_schema(kind: Any) -> dict[str, Any]:
    """Classes of foreign make that a body can hold: complex and numpy's. An instance of any other never arrives."""
    if kind is complex or kind is frozenset or getattr(kind, "__module__", "").partition(".")[0] == "numpy":
        return _named_schema(kind)
    raise TypeError(f"no body can be a {kind!r}; use a msgspec.Struct, a dataclass, a TypedDict or a built-in type")


def _named_schema(kind: Any) -> dict[str, Any]:
    return {"description": getattr(kind, "__name__", None) or str(kind)}
