"""Options that verbs share, and from them the pools that a verb works with.

A worker script is named by --worker, or by a pool of the configuration: of --config, else of the place where one stands
(`pyproc.config.place`). --worker with --config takes that pool's options and another script; --worker alone means
that script with the defaults, whatever lies in the folder. Flags are stronger than the environment, and that than the file.
The name of --pool waits in click's context for the function that chooses: each verb of a pool has it, and none passes it on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from pyproc import ConfigError, Limits, Pool, Sandbox
from pyproc.cli import output
from pyproc.config import load, place
from pyproc.config.model import PLAIN, Configuration, PoolConfig
from pyproc.pool import options as pool_options
from pyproc.supervisor.children import BOOT_SECONDS
from pyproc.supervisor.spec import WorkerSpec

Verb = TypeVar("Verb", bound=Callable[..., Any])
POOL = "pyproc.pool"  # the key in click's context


def _exists(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        with load.named(value):
            load.tables_of(value)
    return value


def _layers(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Layer -> wanted from NAME=WANTED."""
    parted = [text.partition("=") for text in texts]
    for text, (_, sign, _) in zip(texts, parted, strict=True):
        if not sign:
            raise click.UsageError(f"--layer is {text!r}; write NAME=require, NAME=prefer or NAME=off")
    try:
        return dict(Sandbox(layers={name: wanted for name, _, wanted in parted}).layers)
    except ConfigError as error:
        raise click.UsageError(f"--layer: {error}") from error


def _remember_pool(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    ctx.meta[POOL] = value


layers = click.option("--layer", "layers", multiple=True, metavar="NAME=require|prefer|off", callback=_layers,
                      help="How much a layer of the sandbox is wanted; may be repeated.")
pool = click.option("--pool", metavar="NAME", expose_value=False, callback=_remember_pool,
                    help="The pool of the configuration, where it has several.")


def shared(verb: Verb) -> Verb:
    """--json, --config, --log, --help."""
    for option in (
        output.help_option,
        click.option("--log", "log", is_flag=True, expose_value=False,
                     help="Show the supervisor's log, tracebacks of functions too, on standard error."),
        click.option("--config", metavar="FILE", callback=_exists, help="The configuration, pyproc.toml."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, errors too."),
    ):
        verb = option(verb)
    return verb


def confined(verb: Verb) -> Verb:
    """--pool, --profile, --layer."""
    profile = click.option("--profile", metavar="NAME", help="strict, default, or a file in OCI seccomp format.")
    return layers(profile(pool(verb)))


def worker(verb: Verb) -> Verb:
    """--worker, --pool, --profile, --layer."""
    return click.option("--worker", "script", metavar="FILE", help="The worker script.")(confined(verb))


def named_pool() -> str | None:
    """What --pool says, if it was given."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(POOL)


def configuration(config: str | None, flags: load.Flags) -> Configuration | None:
    """The configuration that is named or found, or that --worker alone makes; None where there is none of these. Raises
    ConfigError, UsageError."""
    if config is None and flags.script is not None:
        if flags.pool is not None:
            raise click.UsageError("--pool names a pool of a configuration; give --config FILE too, or only --worker FILE")
        return load.without_file(flags)
    path = place.found() if config is None else config
    if path is None:
        if flags.pool is not None:
            raise click.UsageError(f"--pool is {flags.pool!r}, and there is no configuration; give --config FILE")
        return None
    if flags.script is None and flags.pool is None:
        return load.load(path, flags=flags)
    plain = load.load(path) if flags.script is None else load.load(path, flags=load.Flags(script=flags.script))
    if flags.pool is not None and flags.pool not in plain.pools:
        raise click.UsageError(f"--pool is {flags.pool!r}, and config {path!r} has {', '.join(plain.pools) or 'no pool'}")
    if flags.script is not None and flags.pool is None:
        only(plain)
        if not plain.pools:
            return load.without_file(flags)
    return load.load(path, flags=flags)


def only(made: Configuration, named: str | None = None) -> PoolConfig | None:
    """The pool of --pool, the one `named`, or the file's only one; None where it has none. Raises ConfigError for several, and
    for a name that the file does not have."""
    name = named_pool() or named
    if name is not None and name not in made.pools:
        raise ConfigError(f"config {made.path!r}: it has no pool {name!r}; pools are {', '.join(made.pools)}")
    if name is None and len(made.pools) > 1:
        raise ConfigError(f"config {made.path!r}: it has {len(made.pools)} pools, {', '.join(made.pools)}; choose one by --pool NAME")
    return next(iter(made.pools.values()), None) if name is None else made.pools[name]


def sandbox_of(config: str | None, profile: str | None, layers: dict[str, str]) -> Sandbox:
    """The sandbox of the one pool that is meant, or of the defaults and the flags where there is none. Raises ConfigError,
    UsageError: for several pools too, as what is said of one would be taken for all."""
    made = configuration(config, load.Flags(named_pool(), None, profile, layers))
    chosen = None if made is None else only(made)
    return Sandbox("strict" if profile is None else profile, layers=layers) if chosen is None else chosen.sandbox


def pool_of(script: str | None, config: str | None, profile: str | None, layers: dict[str, str],
            pool: str | None = None) -> PoolConfig:
    """The one pool that is meant (`pool`, where --pool does not say it), everything about it checked but whether it starts. Raises
    ConfigError, UsageError."""
    return _made_and_pool(script, config, profile, layers, pool)[1]


def _made_and_pool(script: str | None, config: str | None, profile: str | None, layers: dict[str, str],
                   pool: str | None = None) -> tuple[Configuration, PoolConfig]:
    made = configuration(config, load.Flags(named_pool(), script, profile, layers))
    if made is None:
        raise click.UsageError("no worker script; give --worker FILE, or --config FILE with a pool")
    if pool is not None and made.path and named_pool() is None and pool not in made.pools:
        known = ", ".join(made.pools) or "no pool"
        raise click.UsageError(f"the question is about pool {pool!r}, and config {made.path!r} has {known}; name one of them, or ask "
                               "with an act alone")
    chosen = only(made, pool if made.path else None)
    if chosen is None:
        raise ConfigError(f"config {made.path!r}: it has 0 pools; choose the script by --worker FILE")
    with load.placed(made, chosen.name):
        pool_options.read(chosen.script, **chosen.options())
    return made, chosen


def open_pool(script: str | None, config: str | None, profile: str | None, layers: dict[str, str]) -> Pool:
    """The pool that is meant, with one worker. Raises ConfigError, ProtectionUnavailable, CallError, UsageError."""
    made, chosen = _made_and_pool(script, config, profile, layers)
    with load.placed(made, chosen.name), output.waiting(f"script {chosen.script!r} to be loaded, at most {BOOT_SECONDS:.0f} s"):
        return Pool(chosen.script, **{**chosen.options(), "workers": 1})


def spec_of(script: str | None, config: str | None, profile: str | None, layers: dict[str, str], *,
            pool: str | None = None) -> WorkerSpec:
    """What the pool that is meant would keep alive; where there is no configuration the defaults and the flags, with the script "/".
    `pool`: which of the file's, where --pool does not say it. Raises ConfigError, UsageError."""
    if configuration(config, load.Flags(named_pool(), script, profile, layers)) is None:
        return WorkerSpec("pool", "/", "", 1, sandbox_of(config, profile, layers), Limits(), {}, None, (), solo=False)
    chosen = pool_of(script, config, profile, layers, pool)
    return pool_options.read(chosen.script, **chosen.options()).spec


def described_spec(script: str | None, config: str | None, profile: str | None,
                   layers: dict[str, str]) -> tuple[WorkerSpec, dict[str, Any]]:
    """As `spec_of` for a script that is to run, and those plain options of its pool that differ from the defaults. Raises
    ConfigError, UsageError."""
    chosen = pool_of(script, config, profile, layers)
    plain = {field.name: getattr(chosen, field.name) for field in fields(chosen) if field.name in PLAIN}
    usual = {name: getattr(PoolConfig(chosen.name, chosen.script), name) for name in plain}
    given = {name: value for name, value in plain.items() if value != usual[name]}
    return pool_options.read(chosen.script, **chosen.options()).spec, given
