"""`pyproc policy compare BASE`: does this configuration stay within another one. For reviews: loosening is exit 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pyproc.cli import output, target
from pyproc.config import load
from pyproc.config.model import PoolConfig
from pyproc.errors import ConfigError

if TYPE_CHECKING:
    from pyproc.sandbox.tighten import Policy

LOOSER = 1  # the exit code


@click.command(short_help="Does this policy stay within another one.")
@click.argument("base", metavar="BASE")
@target.worker
@target.shared
def command(base: str, script: str | None, profile: str | None, layers: dict[str, str], config: str | None, *,
            as_json: bool) -> int:
    """Name every key by which a pool allows more than the pool of the same name in the file BASE, or than BASE's only one."""
    from pyproc.sandbox import tighten

    made = load.load(base, environ={})  # as it is written: what varies here is not its own
    wanted = target.pool_of(script, config, profile, layers)
    allowed = target.only(made, wanted.name if len(made.pools) > 1 else None)
    if allowed is None:
        raise ConfigError(f"config {base!r}: it has no pool to compare with")
    found = tighten.loosened(_policy(allowed), _policy(wanted))
    if as_json:
        output.write(output.encode({"ok": not found, "pool": wanted.name, "base": allowed.name,
                                    "loosened": [each._asdict() for each in found]}))
    elif found:
        output.write(output.show(output.table([("KEY", "BASE", "HERE"), *found])))
    else:
        output.write(output.show(f"pool {wanted.name} stays within pool {allowed.name} of {base}"))
    return LOOSER if found else 0


def _policy(pool: PoolConfig) -> Policy:
    from pyproc.sandbox import profile, tighten
    from pyproc.sandbox.rules import ProfileError

    try:
        rules = profile.named(pool.sandbox.profile)
    except ProfileError as error:
        raise ConfigError(f"pool {pool.name}: sandbox {error}") from error
    return tighten.Policy(pool.sandbox, pool.limits, rules, pool.isolation)
