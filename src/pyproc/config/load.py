"""pyproc.toml, the environment and flags -> the model of all pools, or one error that names file, key, value and remedy.

    file -> tables ─┐
    environment ────┼─▶ merged tables, each leaf with its origin ─▶ checked, key by key ─▶ Configuration
    flags ──────────┘

Rules and reasons:

* All pools are checked, also those that a verb does not use: a file is right or wrong as a whole.
* An unknown key is an error that lists the possible ones: a misspelt limit would be no limit.
* Paths are relative to the file, not to the folder in which somebody happens to stand. Flags are relative to that folder.
* The sections of the service must be known by name; what is in them is checked by who uses them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pyproc.config import values
from pyproc.config.files import read_regular
from pyproc.config.model import ISOLATIONS, KEYS, PLAIN, TABLES, Configuration, PoolConfig
from pyproc.config.origin import Origin, Override, from_environment
from pyproc.config.units import parse_time
from pyproc.errors import ConfigError

SECTIONS = ("service", "pools", "access", "audit", "gateway", "doctor")
POOL_KEYS = ("script", *PLAIN, *TABLES)
SHIPPED = ("strict", "default")  # profiles by name; another one is a file
FILE_MAX = 4 << 20  # bytes; a longer file is no configuration


@dataclass(frozen=True)
class Flags:
    """What the command line says of the pool `pool`, or of each pool."""

    pool: str | None = None
    script: str | None = None
    profile: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict)

    def overrides(self, pools: Mapping[str, Any]) -> Iterator[Override]:
        """For each pool that is meant."""
        for name in pools if self.pool is None else (self.pool,):
            if self.script is not None:
                yield Override(("pools", name, "script"), os.path.abspath(self.script), Origin("flag", "--worker"))
            if self.profile is not None:
                yield Override(("pools", name, "sandbox", "profile"), _profile(self.profile, os.getcwd()), Origin("flag", "--profile"))
            for layer, wanted in self.layers.items():
                yield Override(("pools", name, "sandbox", "layers", layer), wanted, Origin("flag", "--layer"))


def load(path: str, environ: Mapping[str, str] = os.environ, flags: Flags = Flags()) -> Configuration:
    """The configuration in the file `path`. Raises ConfigError."""
    with named(path):
        tables = tables_of(path)
        origins = {key: Origin("file", path) for key in _leaves("", tables)}
        return _checked(path, tables, origins, environ, flags)


def without_file(flags: Flags) -> Configuration:
    """The defaults and flags for one pool, named `pool`, of `flags.script`. No variables: what they change is a file's. Raises
    ConfigError."""
    return _checked("", {"pools": {"pool": {}}}, {}, {}, flags)


def tables_of(path: str) -> dict[str, Any]:
    """The file's tables, unchecked. Raises ConfigError, without the file's name."""
    try:
        return tomllib.loads(read_regular(path, FILE_MAX).decode("utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, (tomllib.TOMLDecodeError, UnicodeDecodeError)):
            raise ConfigError(f"not TOML: {error}") from error
        why = error.strerror if isinstance(error, OSError) else error  # a path with NUL
        raise ConfigError(f"cannot be read: {why}; give the path of a pyproc.toml") from error
    except RecursionError as error:
        raise ConfigError("not TOML that can be read: its lists or tables are nested too deeply") from error


@contextmanager
def named(path: str) -> Iterator[None]:
    """Each refusal begins with the file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"config {path!r}: {error}") from error


@contextmanager
def placed(made: Configuration, pool: str) -> Iterator[None]:
    """A refusal that begins with a key of `pool`, as those of its start do, names the file too, and the whole key."""
    try:
        yield
    except ConfigError as error:
        if not made.path or _key_of(str(error)).partition(".")[0] not in (*PLAIN, *TABLES):
            raise
        told = f"pools.{pool}.{error}"
        raise ConfigError(f"config {made.path!r}: {told}{_source_of(told, made.origins)}") from error


def _checked(path: str, tables: dict[str, Any], origins: dict[str, Origin], environ: Mapping[str, str], flags: Flags) -> Configuration:
    for key in tables:
        if key not in SECTIONS:
            raise ConfigError(f"table {key} is unknown; possible are {', '.join(SECTIONS)}")
    pools = _table("pools", tables.get("pools", {}))
    for override in (*from_environment(environ, SECTIONS, pools), *flags.overrides(pools)):
        _set(tables, override)
        key = ".".join(override.path)
        origins = {other: origin for other, origin in origins.items() if not other.startswith(f"{key}.")}
        below = _leaves(key, override.value) if isinstance(override.value, dict) and override.value else (key,)
        origins.update(dict.fromkeys(below, override.origin))
    base = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
    made = {}
    for name, table in _table("pools", tables.get("pools", {})).items():
        try:
            made[name] = _pool(name, table, base)
        except ConfigError as error:
            raise ConfigError(f"{error}{_source_of(str(error), origins)}") from error
    sections = {name: table for name, table in tables.items() if name != "pools"}
    return Configuration(path, MappingProxyType(made), MappingProxyType(sections), MappingProxyType(origins))


def _set(tables: dict[str, Any], override: Override) -> None:
    here = tables
    for depth, part in enumerate(override.path[:-1], 1):
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            name = ".".join(override.path[:depth])
            raise ConfigError(f"{override.origin.where} sets {'.'.join(override.path)}, and {name} is {values.shown(inner)}, no table")
        here = inner
    here[override.path[-1]] = override.value


def _source_of(refusal: str, origins: Mapping[str, Origin]) -> str:
    """Which variable or flag set what is refused; nothing for the file."""
    word = _key_of(refusal)
    set_by = [origin.where for key, origin in origins.items()
              if origin.kind in ("environment", "flag") and (word == key or key.startswith(f"{word}."))]
    return f" (set by {', '.join(set_by)})" if set_by else ""


def _key_of(refusal: str) -> str:
    return re.split(r"[\s\[:]", refusal, maxsplit=1)[0]


def _leaves(prefix: str, table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict) and value:
            yield from _leaves(key, value)
        else:
            yield key


def _pool(name: str, given: object, base: str) -> PoolConfig:
    key = f"pools.{name}"
    if not values.POOL_NAME.fullmatch(name):
        raise ConfigError(f"pool {values.shown(name)} has a name that cannot be used; write at most 64 letters, digits, _, - and .")
    table = _table(key, given, POOL_KEYS)
    script = table.get("script")
    if not isinstance(script, str) or not script:
        raise ConfigError(f"{key}.script is {'missing' if script is None else values.shown(script)}; write script = \"worker.py\"")
    isolation = table.get("isolation", "worker")
    if isolation not in ISOLATIONS:
        raise ConfigError(f"{key}.isolation is {values.shown(isolation)}; write {', '.join(ISOLATIONS)}")
    made: dict[str, Any] = {"isolation": isolation}
    for option, low, high in (("workers", 1, values.WORKERS_MAX), ("queue", 0, values.QUEUE_MAX),
                              ("max_requests", 0, values.REQUESTS_MAX)):
        if option in table:
            made[option] = values.whole(f"{key}.{option}", table[option], low, high)
    if "zygote" in table:
        made["zygote"] = values.switch(f"{key}.zygote", table["zygote"])
    if "timeout" in table:
        made["timeout"] = parse_time(f"{key}.timeout", table["timeout"])
    python = values.interpreter(f"{key}.python", table.get("python"))
    if python is not None and "/" in python:  # a bare name is looked up in PATH
        python = os.path.join(base, python)
    for section in TABLES:
        made[section] = _made(key, section, table.get(section, {}), base)
    return PoolConfig(name, os.path.abspath(os.path.join(base, script)), python=python,
                      env=MappingProxyType(values.environment(f"{key}.env", table.get("env"))),
                      preload=values.modules(f"{key}.preload", table.get("preload", ())), **made)


def _made(pool: str, section: str, given: object, base: str) -> Any:
    """Sandbox, Limits or Restart with the table's keys as its arguments; their refusals begin with `section.`."""
    kind = TABLES[section]
    table = dict(_table(f"{pool}.{section}", given, KEYS[section]))
    if isinstance(table.get("read"), list):
        table["read"] = [os.path.join(base, path) if isinstance(path, str) and path else path for path in table["read"]]
    if isinstance(table.get("profile"), str):
        table["profile"] = _profile(table["profile"], base)
    try:
        return kind(**table)
    except ConfigError as error:
        raise ConfigError(f"{pool}.{error}") from error
    except (TypeError, ValueError) as error:  # a path with NUL, a key that is no text
        raise ConfigError(f"{pool}.{section}: {error}") from error


def _profile(name: str, base: str) -> str:
    return name if name in SHIPPED else os.path.join(base, name)


def _table(name: str, value: object, keys: Collection[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        form = "tables, [pools.NAME]" if name == "pools" else f"a table, [{name}]"
        raise ConfigError(f"{name} is {values.shown(value)}; write {form}")
    for key in value:
        if keys is not None and key not in keys:
            raise ConfigError(f"{name}.{key} is unknown; possible are {', '.join(keys)}")
    return value
