"""Where a value of the configuration comes from, and the overrides of the environment: defaults < file < environment < flags.

`PYPROC_POOLS__SCORING__LIMITS__MEMORY="2 GiB"` sets `pools.scoring.limits.memory`. Rules and reasons:

* A variable counts if its name begins with PYPROC_ and has a double underscore; others with that beginning are not ours to judge.
* A pool is found by its name in capitals, `-` and `.` written as `_`; one that the file does not have is a slip and no new
  pool. Below `env` names stay as they are, elsewhere keys are lower case.
* A value is a TOML value where it is one, else text; where the key takes text it is text as it stands, so that
  `…__ENV__PORT=80` is what the worker gets.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pyproc.errors import ConfigError

PREFIX, BETWEEN = "PYPROC_", "__"
TEXTS = frozenset({"script", "isolation", "python", "profile"})  # keys of a pool and of its sandbox that take text
TEXT_TABLES = frozenset({"env", "layers"})  # maps of text


class Origin(NamedTuple):
    """`kind`: default, file, environment or flag; `where`: the file, the variable or the flag."""

    kind: str
    where: str


DEFAULT = Origin("default", "")


class Override(NamedTuple):
    """One value, the place in the tables that it sets, and where it comes from."""

    path: tuple[str, ...]
    value: Any
    origin: Origin


def from_environment(environ: Mapping[str, str], sections: tuple[str, ...], pools: Mapping[str, Any]) -> Iterator[Override]:
    """The overrides in `environ`, those of whole tables first. Raises ConfigError naming the variable."""
    names = [name for name in environ if name.startswith(PREFIX) and BETWEEN in name.removeprefix(PREFIX)]
    for name in sorted(names, key=lambda name: (name.count(BETWEEN), name)):
        section, *rest = name.removeprefix(PREFIX).split(BETWEEN)
        if section.lower() not in sections or not all(rest):
            known = ", ".join(f"{PREFIX}{known.upper()}{BETWEEN}…" for known in sections)
            raise ConfigError(f"environment variable {name} names no key; possible are {known}")
        path = (section.lower(), *_path(name, section.lower(), rest, pools))
        yield Override(path, _value(path, environ[name]), Origin("environment", name))


def _path(variable: str, section: str, rest: list[str], pools: Mapping[str, Any]) -> list[str]:
    if section != "pools":
        return [part.lower() for part in rest]
    fitting = [pool for pool in pools if _capitals(pool) == rest[0].upper()]
    if len(fitting) != 1:
        told = " and ".join(fitting) if fitting else "no pool of the file"
        raise ConfigError(f"environment variable {variable} means {told}; the pools are {', '.join(pools) or 'none'}")
    below = [rest[1].lower(), *rest[2:]] if len(rest) > 1 else []
    return [fitting[0], *(below if below[:1] == ["env"] else [part.lower() for part in below])]


def _capitals(pool: str) -> str:
    return re.sub(r"[-.]", "_", pool).upper()


def _value(path: tuple[str, ...], text: str) -> Any:
    takes_text = path[0] == "pools" and (path[-1] in TEXTS or (len(path) > 3 and path[-2] in TEXT_TABLES))
    if not takes_text:
        try:
            found = tomllib.loads(f"value = {text}")
        except (tomllib.TOMLDecodeError, RecursionError):
            return text
        if found.keys() == {"value"}:
            return found["value"]
    return text
