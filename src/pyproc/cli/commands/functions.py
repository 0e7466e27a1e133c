"""`pyproc functions --worker FILE`: what a script exposes, a signature for each; the schemas are in the JSON document."""

from __future__ import annotations

import click

from pyproc.cli import output, target
from pyproc.cli.signature import signature
from pyproc.pool.failures import EXPOSES_NOTHING


@click.command(short_help="List what a worker script exposes.")
@target.worker
@target.shared
def command(script: str | None, profile: str | None, layers: dict[str, str], config: str | None, *,
            as_json: bool) -> None:
    """List the functions that a worker script exposes; with --json the JSON Schemas of their input and output."""
    with target.open_pool(script, config, profile, layers) as pool:
        functions = pool.functions()
    if as_json:
        output.write(output.encode({"ok": True, "functions": functions}))
        return
    for name, told in functions.items():
        output.write(output.paragraph(signature(name, told)))
    if list(functions) == ["health"]:
        output.tell(f"pyproc: {EXPOSES_NOTHING}")
