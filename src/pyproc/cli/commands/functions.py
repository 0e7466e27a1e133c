"""`pyproc functions --worker FILE`: what a script exposes, with schemas."""

from __future__ import annotations

from typing import Any

import click

from pyproc.cli import output, target


@click.command(short_help="List what a worker script exposes.")
@target.worker
@target.shared
def command(script: str | None, profile: str | None, layers: dict[str, str], config: str | None, *,
            as_json: bool) -> None:
    """List the functions that a worker script exposes, with the JSON Schemas of their input and output."""
    with target.open_pool(script, config, profile, layers) as pool:
        functions = pool.functions()
    if as_json:
        output.write(output.encode({"ok": True, "functions": functions}))
        return
    rows = [("NAME", "KIND", "INPUT", "OUTPUT")]
    rows += [(name, "stream" if told.get("stream") else "call", _short(told.get("input")), _short(told.get("output")))
             for name, told in functions.items()]
    output.write(output.table(rows))


def _short(schema: Any) -> str:
    if not schema:
        return "any"
    reference = str(schema.get("$ref", ""))
    told = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), schema)
    if isinstance(told.get("properties"), dict):
        needed = told.get("required", ())
        return ", ".join(f"{name}{'' if name in needed else '?'}: {part.get('type', 'any')}"
                         for name, part in told["properties"].items())
    return str(told["type"]) if set(told) == {"type"} else output.encode(schema)
