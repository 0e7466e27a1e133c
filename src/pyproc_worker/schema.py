"""What a signature asks of a body: the check that fills its parameters, and the JSON Schema that says the same.

Everything is worked out once, when a function is exposed: a Struct with one field for each parameter, compiled by
msgspec. A call then costs one conversion. The body was decoded before, as it is: dates, UUIDs, decimals, sets and
arrays, which travel as extensions, are already what they were. From a JSON caller a date, time, UUID or decimal is
text and is parsed where the annotation asks for one; text is never taken for bytes, because the same text from a
MessagePack caller would silently become something else.

The schema promises no more than the check keeps: bytes, which JSON does not carry, are named and not promised as base64, and a
list may repeat what a set has once.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any

import msgspec
from msgspec import ValidationError, structs

from pyproc_worker.misfit import NEVER_FROM_TEXT, misfit

Check = Callable[[Any], Any]


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
                raise misfit(body, kind, error, _named(kind)) from None

    else:

        def check(body: Any) -> Any:
            try:
                return convert(body, kind, builtin_types=NEVER_FROM_TEXT)
            except ValidationError as error:
                raise misfit(body, kind, error, _named(kind)) from None

    try:
        convert(None, kind)  # compiles the check, or says why it cannot
    except ValidationError:
        pass
    return check


def _holds_bytes(kind: Any) -> bool:
    """Whether somewhere in the type text could be taken for bytes: JSON Schema says so where it is."""
    return b'"contentEncoding"' in msgspec.json.encode(_written(kind, _named_schema))


def _named(kind: Any) -> Callable[[], dict[str, Any]]:
    return lambda: _written(kind, _named_schema)


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
    kept: dict[str, Any] = _kept(_written(kind, hook))
    return kept


def _kept(schema: Any) -> Any:
    """`schema` without what the check does not keep."""
    if isinstance(schema, list):
        return [_kept(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("contentEncoding") == "base64":
        return {"description": "bytes", **{key: schema[key] for key in ("title", "description") if key in schema}}
    return {key: _kept(inner) for key, inner in schema.items() if not (key == "uniqueItems" and inner is True)}


def _written(kind: Any, hook: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """As msgspec writes it."""
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
