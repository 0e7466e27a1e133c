"""Options that verbs share, and from them the pool that a verb works with.

A worker script is named by --worker, or by the one pool of --config. Flags are stronger than the file. Unknown keys of
a pool are an error that names the key and the file; other sections of the file belong to the service.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pyproc import ConfigError, Limits, Pool, Sandbox

Verb = TypeVar("Verb", bound=Callable[..., Any])
PLAIN_KEYS = ("workers", "isolation", "timeout", "queue", "max_requests", "env", "preload", "python")


def _exists(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        read(value)
    return value


def shared(verb: Verb) -> Verb:
    """--json, --config, --log."""
    for option in (
        click.option("--log", "log", is_flag=True, expose_value=False,
                     help="Show the supervisor's log, tracebacks of functions too, on standard error."),
        click.option("--config", metavar="FILE", callback=_exists, help="The configuration, pyproc.toml."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, errors too."),
    ):
        verb = option(verb)
    return verb


def confined(verb: Verb) -> Verb:
    """--profile, --layer."""
    for option in (
        click.option("--layer", "layers", multiple=True, metavar="NAME=require|prefer|off",
                     help="How much a layer of the sandbox is wanted; may be repeated."),
        click.option("--profile", metavar="NAME", help="strict, default, or a file in OCI seccomp format."),
    ):
        verb = option(verb)
    return verb


def worker(verb: Verb) -> Verb:
    """--worker, --profile, --layer."""
    return click.option("--worker", "script", metavar="FILE", help="The worker script.")(confined(verb))


def read(path: str) -> dict[str, Any]:
    """The file's tables. Raises ConfigError."""
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path!r} cannot be read: {error.strerror}; give the path of a pyproc.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path!r} is not TOML: {error}") from error


def layers_of(texts: tuple[str, ...]) -> dict[str, str]:
    """Layer -> wanted from NAME=WANTED. Raises ConfigError; the names are Sandbox's to check."""
    parted = [text.partition("=") for text in texts]
    for text, (_, sign, _) in zip(texts, parted, strict=True):
        if not sign:
            raise ConfigError(f"--layer is {text!r}; write NAME=require, NAME=prefer or NAME=off")
    return {name: wanted for name, _, wanted in parted}


def sandbox_of(config: str | None, profile: str | None, layers: tuple[str, ...]) -> Sandbox:
    """The sandbox of the flags and of the file's only pool, if it has one."""
    pools = read(config).get("pools", {}) if config else {}
    table = next(iter(pools.values())) if len(pools) == 1 else {}
    return _sandbox(table, config or "", profile, layers)


def open_pool(script: str | None, config: str | None, profile: str | None, layers: tuple[str, ...]) -> Pool:
    """A pool for the script. Raises ConfigError, ProtectionUnavailable, CallError."""
    table: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if script is None:
        if config is None:
            raise click.UsageError("No worker script: give --worker FILE, or --config FILE with one pool.")
        table, script = _only_pool(config)
        options = {key: table[key] for key in PLAIN_KEYS if key in table}
    sandbox = _sandbox(table, config or "", profile, layers)
    limits = _made(Limits, table.get("limits", {}), f"limits in config {config!r}")
    if not Path(script).is_file():
        raise ConfigError(f"worker script {script!r} is not a file; give the path of a Python file")
    return Pool(script, sandbox=sandbox, limits=limits, **{**options, "workers": 1})


def _only_pool(config: str) -> tuple[dict[str, Any], str]:
    pools = read(config).get("pools", {})
    if not isinstance(pools, dict) or len(pools) != 1:
        raise ConfigError(f"config {config!r} has {len(pools)} pools; choose the script by --worker FILE")
    name, table = next(iter(pools.items()))
    for key in table:
        if key not in (*PLAIN_KEYS, "script", "sandbox", "limits", "restart"):
            raise ConfigError(f"pools.{name}.{key} in config {config!r} is unknown; remove it")
    if not isinstance(table.get("script"), str):
        raise ConfigError(f"pools.{name}.script in config {config!r} is missing; write script = \"worker.py\"")
    return table, str(Path(config).parent / table["script"])


def _sandbox(table: dict[str, Any], config: str, profile: str | None, layers: tuple[str, ...]) -> Sandbox:
    options = dict(table.get("sandbox", {}))
    if profile is not None:
        options["profile"] = profile
    options["layers"] = {**options.get("layers", {}), **layers_of(layers)}
    made: Sandbox = _made(Sandbox, options, f"sandbox in config {config!r}" if config else "the sandbox's options")
    return made


def _made(kind: Callable[..., Any], options: dict[str, Any], where: str) -> Any:
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
