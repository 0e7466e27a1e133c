"""Whether what a worker calls a schema is one of the forms that `pyproc_worker.schema` makes. Pure.

Whoever shows or follows it later meets types from the known set, names that are one line, schemas where schemas stand and
otherwise nothing but JSON, and that in bounded number; the wire bounds the depth. Texts that a script's author writes,
descriptions and defaults, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VALUES_MAX: Final = 200_000  # in all schemas of a greeting: ten thousand functions with three parameters each
NAME_CHARS: Final = 1000  # of a property or a definition
TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
NAMED: Final = ("properties", "$defs")  # name -> schema
LISTED: Final = ("anyOf", "prefixItems")
SINGLE: Final = ("items", "additionalProperties", "propertyNames")  # true and false are schemas there
TEXTS: Final = ("title", "description", "format", "pattern", "contentEncoding")

Place = tuple[object, bool]
"""A value, and whether it stands where a schema does."""


class NotASchema(Exception):
    """Says what is wrong."""


def check(schema: object, room: int = VALUES_MAX) -> int:
    """How much of `room`, in values, is left. Raises NotASchema."""
    waiting: list[Place] = [(schema, True)]
    while waiting:
        value, whole = waiting.pop()
        room -= 1
        if room < 0:
            raise NotASchema(f"with those before it holds more than {VALUES_MAX} values")
        if type(value) is dict:
            if not all(type(key) is str for key in value):
                raise NotASchema("a key is no text")
            waiting += _of_schema(value) if whole else [(inner, False) for inner in value.values()]
        elif whole:
            raise NotASchema("a schema in it is no map")
        elif type(value) is list:
            waiting += [(inner, False) for inner in value]
        elif value is not None and type(value) not in (str, bool, int, float):
            raise NotASchema(f"it holds a {type(value).__name__}")
    return room


def _of_schema(schema: dict[str, object]) -> Iterator[Place]:
    for key, value in schema.items():
        if key in NAMED:
            if type(value) is not dict or not all(map(_is_name, value)):
                raise NotASchema(f"its {key} is no map of names")
            yield from ((inner, True) for inner in value.values())
        elif key in LISTED:
            if type(value) is not list:
                raise NotASchema(f"its {key} is no list")
            yield from ((inner, True) for inner in value)
        elif key in SINGLE:
            yield value, type(value) is not bool
        elif _is_wrong(key, value):
            raise NotASchema(f"its {key} is not of the form that it has")
        else:
            yield value, False


def _is_wrong(key: str, value: object) -> bool:
    match key:
        case "type":
            return value not in TYPES
        case "$ref":
            return not _is_name(value)
        case "required":
            return type(value) is not list or not all(map(_is_name, value))
        case "enum":
            return type(value) is not list
    return key in TEXTS and type(value) is not str


def _is_name(value: object) -> bool:
    return type(value) is str and len(value) <= NAME_CHARS and value.isprintable()
