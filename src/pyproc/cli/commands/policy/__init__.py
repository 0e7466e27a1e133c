"""`pyproc policy VERB`: what a pool's workers may do, shown, exported, explained, learnt. Its verbs are files beside this one."""

from __future__ import annotations

import click

from pyproc.cli import output
from pyproc.cli.program import Verbs


class PolicyVerbs(Verbs):
    """The closed list."""

    verbs = (
        "compare",
        "explain",
        "export",
        "learn",
        "show",
    )
    folder = "policy."


@click.group(cls=PolicyVerbs, short_help="Show, explain, compare, learn and export what workers may do.")
@output.help_option
def command() -> None:
    """What a pool's workers may do and use."""
