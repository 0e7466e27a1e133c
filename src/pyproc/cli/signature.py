"""A function as a person reads it: `area(width: number, height: number = 2.0) -> number`, from its JSON Schemas.

The names of types are JSON Schema's: what a caller on the command line writes. A list is `[integer]`, a map `{string: number}`, what
has a format goes by that (`date`), a class by its name. The whole of a schema is in the JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEPTH = 4  # of lists and maps in one another, beyond which a type is shown as …


def signature(name: str, told: Mapping[str, Any]) -> str:
    """One line of `functions()`."""
    result = _Types(told.get("output") or {}).of(told.get("output"))
    body = told.get("input") or {}
    return f"{name}({_Types(body).parameters(body)}) -> {'stream of ' if told.get('stream') else ''}{result}"


class _Types:
    """The types of one schema, in which the others stand by their names."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._definitions: Mapping[str, Any] = root.get("$defs", {})

    def parameters(self, schema: Mapping[str, Any]) -> str:
        """The body's keys, where it has names for them, else its type."""
        seen = schema
        if "$ref" in schema:
            seen = self._definitions.get(_last(schema["$ref"]), schema)
        if not isinstance(seen.get("properties"), dict):
            return self.of(schema)
        needed = seen.get("required", ())
        return ", ".join(f"{name}: {self.of(part)}{'' if name in needed else _default(part)}"
                         for name, part in seen["properties"].items())

    def of(self, schema: Any, depth: int = 0) -> str:
        """The name of a type; `any` for what the schema leaves open."""
        if not isinstance(schema, Mapping) or not schema:
            return "any"
        if depth > DEPTH:
            return "…"
        if "$ref" in schema:
            return _last(schema["$ref"])
        if "anyOf" in schema:
            return " | ".join(self.of(part, depth) for part in schema["anyOf"])
        if "enum" in schema:
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
        kind = schema.get("type")
        if kind == "array":
            first = schema.get("prefixItems")
            return f"[{', '.join(self.of(part, depth + 1) for part in first) if first else self.of(schema.get('items'), depth + 1)}]"
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return f"{{string: {self.of(schema['additionalProperties'], depth + 1)}}}"
        if kind == "object" and "title" in schema:
            return str(schema["title"])
        if isinstance(kind, list):
            return " | ".join(map(str, kind))
        return str(schema.get("format") or kind or schema.get("description") or "any")


def _last(reference: str) -> str:
    return reference.removeprefix("#/$defs/")


def _default(part: Any) -> str:
    """Of a parameter that may be left out."""
    if isinstance(part, Mapping) and "default" in part:
        return f" = {json.dumps(part['default'], ensure_ascii=False)}"
    return " = …"
