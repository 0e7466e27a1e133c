"""Options that verbs share, and from them the pool that a verb works with.

A worker script is named by --worker, or by the one pool of --config. Flags are stronger than the file. Unknown keys are
an error that names the key, the file and the possible keys; what stands in the other sections is the service's to check.
Whether a value fits is checked where it is used, by Sandbox, Limits and the pool: here is only said in which file it is.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from pyproc import ConfigError, Limits, Pool, Sandbox
from pyproc.cli import output
from pyproc.pool import options as pool_options
from pyproc.supervisor.spec import WorkerSpec

Verb = TypeVar("Verb", bound=Callable[..., Any])
TABLES = ("service", "pools", "access", "audit", "gateway")
PLAIN_KEYS = ("workers", "isolation", "timeout", "queue", "max_requests", "env", "preload", "python")
POOL_KEYS = ("script", *PLAIN_KEYS, "sandbox", "limits", "restart")


def _exists(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        with _named(value):
            read(value)
    return value


def _layers(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Layer -> wanted from NAME=WANTED."""
    parted = [text.partition("=") for text in texts]
    for text, (_, sign, _) in zip(texts, parted, strict=True):
        if not sign:
            raise click.UsageError(f"--layer is {text!r}; write NAME=require, NAME=prefer or NAME=off")
    try:
        return Sandbox(layers={name: wanted for name, _, wanted in parted}).layers
    except ConfigError as error:
        raise click.UsageError(f"--layer: {error}") from error


layers = click.option("--layer", "layers", multiple=True, metavar="NAME=require|prefer|off", callback=_layers,
                      help="How much a layer of the sandbox is wanted; may be repeated.")


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
    """--profile, --layer."""
    return layers(click.option("--profile", metavar="NAME", help="strict, default, or a file in OCI seccomp format.")(verb))


def worker(verb: Verb) -> Verb:
    """--worker, --profile, --layer."""
    return click.option("--worker", "script", metavar="FILE", help="The worker script.")(confined(verb))


def read(path: str) -> dict[str, Any]:
    """The file's tables. Raises ConfigError, without the file's name."""
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}; give the path of a pyproc.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}") from error


def sandbox_of(config: str | None, profile: str | None, layers: dict[str, str]) -> Sandbox:
    """The sandbox of the file's only pool, or the defaults where it has none, and of the flags. Raises ConfigError for several
    pools: what is said of the defaults would be taken for theirs."""
    sandbox = Sandbox()
    if config is not None:
        with _named(config):
            pools = _pools(read(config))
            if len(pools) > 1:
                raise ConfigError(f"it has {len(pools)} pools, {', '.join(pools)}; give a file with the one that is meant")
            if pools:
                [(name, pool)] = pools.items()
                sandbox = _made(Sandbox, f"{name}.sandbox", pool.get("sandbox", {}))
    return _with_flags(sandbox, profile, layers)


def open_pool(script: str | None, config: str | None, profile: str | None, layers: dict[str, str]) -> Pool:
    """A pool for the script. Raises ConfigError, ProtectionUnavailable, CallError."""
    if script is None and config is None:
        raise click.UsageError("no worker script; give --worker FILE, or --config FILE with one pool")
    script, options = _described(script, config, profile, layers)
    return Pool(script, **{**options, "workers": 1})


def spec_of(script: str | None, config: str | None, profile: str | None, layers: dict[str, str], *,
            pool: str | None = None) -> WorkerSpec:
    """What a pool would keep alive; with neither script nor file the defaults, whose script is "/". `pool`: which of the file's,
    where there are several. Raises ConfigError."""
    if script is None and config is None:
        return WorkerSpec("pool", "/", "", 1, sandbox_of(None, profile, layers), Limits(), {}, None, (), solo=False)
    script, options = _described(script, config, profile, layers, pool)
    return pool_options.read(script, **options).spec


def described_spec(script: str | None, config: str | None, profile: str | None,
                   layers: dict[str, str]) -> tuple[WorkerSpec, dict[str, Any]]:
    """As `spec_of` for a script that is to run, and the options of its pool as they were given. Raises ConfigError."""
    if script is None and config is None:
        raise click.UsageError("no worker script; give --worker FILE, or --config FILE with one pool")
    script, options = _described(script, config, profile, layers)
    return pool_options.read(script, **options).spec, options


def _described(script: str | None, config: str | None, profile: str | None, layers: dict[str, str],
               pool: str | None = None) -> tuple[str, dict[str, Any]]:
    """The script, and the options of its pool."""
    options: dict[str, Any] = {"sandbox": Sandbox()}
    if script is None:
        assert config is not None  # noqa: S101 - both callers have looked
        with _named(config):
            options = _one_pool(config, pool)
            script = options.pop("script")
    elif not Path(script).is_file():
        raise ConfigError(f"worker script {script!r} is not a file; give the path of a Python file")
    options["sandbox"] = _with_flags(options["sandbox"], profile, layers)
    return script, options


@contextmanager
def _named(config: str) -> Iterator[None]:
    """Each refusal begins with the file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"config {config!r}: {error}") from error


def _one_pool(config: str, chosen: str | None) -> dict[str, Any]:
    """The options of the chosen pool, or of the file's only one, all of them checked."""
    pools = _pools(read(config))
    if chosen is not None:
        if f"pools.{chosen}" not in pools:
            raise ConfigError(f"it has no pool {chosen!r}; pools are {', '.join(name.removeprefix('pools.') for name in pools)}")
        pools = {f"pools.{chosen}": pools[f"pools.{chosen}"]}
    if len(pools) != 1:
        raise ConfigError(f"it has {len(pools)} pools; choose the script by --worker FILE")
    [(name, pool)] = pools.items()
    script = pool.get("script")
    if not isinstance(script, str):
        wrong = "missing" if script is None else repr(script)
        raise ConfigError(f"{name}.script is {wrong}; write script = \"worker.py\"")
    options = {key: pool[key] for key in PLAIN_KEYS if key in pool}
    options["name"] = name.removeprefix("pools.")
    options["script"] = str(Path(config).parent / script)
    options["sandbox"] = _made(Sandbox, f"{name}.sandbox", pool.get("sandbox", {}))
    options["limits"] = _made(Limits, f"{name}.limits", pool.get("limits", {}))
    _called(pool_options.read, name, options)
    return options


def _pools(tables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted name -> the pool's table."""
    for key in tables:
        if key not in TABLES:
            raise ConfigError(f"table {key} is unknown; possible are {', '.join(TABLES)}")
    pools = tables.get("pools", {})
    if not isinstance(pools, dict):
        raise ConfigError(f"pools is {pools!r}; write tables, [pools.NAME]")
    return {f"pools.{name}": _table(f"pools.{name}", pool, POOL_KEYS) for name, pool in pools.items()}


def _table(name: str, value: object, keys: Collection[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}; write a table, [{name}]")
    for key in value:
        if key not in keys:
            raise ConfigError(f"{name}.{key} is unknown; possible are {', '.join(keys)}")
    return value


def _made(kind: Callable[..., Any], name: str, table: object) -> Any:
    """`kind` with the table's keys as its arguments."""
    return _called(kind, name, _table(name, table, inspect.signature(kind).parameters))


def _called(kind: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:  # of a type that `kind` does not expect
        raise ConfigError(f"{name}: {error}") from error


def _with_flags(sandbox: Sandbox, profile: str | None, layers: dict[str, str]) -> Sandbox:
    return Sandbox(sandbox.profile if profile is None else profile, read=sandbox.read, scratch=sandbox.scratch,
                   layers={**sandbox.layers, **layers})
