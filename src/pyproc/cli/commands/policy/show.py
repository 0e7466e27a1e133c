"""`pyproc policy show`: the policy in force for a configuration on this machine: layers, paths, limits, calls with their reasons."""

from __future__ import annotations

import click

from pyproc.cli import output, target


@click.command(short_help="Show the policy in force.")
@target.worker
@target.shared
def command(script: str | None, profile: str | None, layers: dict[str, str], config: str | None, *, as_json: bool) -> None:
    """Show what workers of this configuration may do here: each layer is tried, nothing of the script is run; an
    interpreter that `python` names is asked for its paths."""
    from pyproc.policy import document, survey, text

    policy = survey.here(target.spec_of(script, config, profile, layers))
    if as_json:
        output.write(output.encode({"ok": True, **document.render(policy)}))
    else:
        output.write(output.show(text.render(policy)))
