"""A configuration as it is in force: every pool with every value, and where each value comes from. Frozen; made by `load`.

`values()` and `origin()` speak of keys as the file does, "pools.scoring.limits.memory", so that what is shown can be found
and changed. The sections of the service are carried as they stand; who uses them checks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from pyproc.config.options import Limits, Restart, Sandbox
from pyproc.config.origin import DEFAULT, Origin

ISOLATIONS = ("worker", "call", "tenant")
PLAIN = ("workers", "isolation", "timeout", "queue", "max_requests", "env", "preload", "python", "zygote")
TABLES: dict[str, type[Any]] = {"sandbox": Sandbox, "limits": Limits, "restart": Restart}
KEYS = {table: tuple(signature(kind).parameters) for table, kind in TABLES.items()}


@dataclass(frozen=True)
class PoolConfig:
    """One pool. `script` is absolute; `timeout` in seconds; the defaults are those of `Pool`."""

    name: str
    script: str
    workers: int = 1
    isolation: str = "worker"
    timeout: float = 30.0
    queue: int = 1000
    max_requests: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    python: str | None = None
    zygote: bool = True
    sandbox: Sandbox = field(default_factory=Sandbox)
    limits: Limits = field(default_factory=Limits)
    restart: Restart = field(default_factory=Restart)

    def options(self) -> dict[str, Any]:
        """What `Pool` takes beside the script."""
        return {name: getattr(self, name) for name in ("name", *PLAIN, *TABLES)}

    def values(self) -> Iterator[tuple[str, Any]]:
        """Each key and its value, defaults too; a map is shown entry by entry."""
        tables = {table: getattr(self, table) for table in TABLES}
        plain = {name: getattr(self, name) for name in ("script", *PLAIN)}
        nested = {f"{table}.{name}": getattr(made, name) for table, made in tables.items() for name in KEYS[table]}
        for name, value in {**plain, **nested}.items():
            if isinstance(value, Mapping):
                yield from ((f"pools.{self.name}.{name}.{entry}", inner) for entry, inner in value.items())
            else:
                yield f"pools.{self.name}.{name}", value


@dataclass(frozen=True)
class Configuration:
    """`path` of the file, "" where there is none; `pools` in the file's order; `sections`: the other tables."""

    path: str
    pools: Mapping[str, PoolConfig]
    sections: Mapping[str, Any]
    origins: Mapping[str, Origin]

    def origin(self, key: str) -> Origin:
        """What set the value of `key`."""
        return self.origins.get(key, DEFAULT)
