"""The plain values of a pool, each checked once for both of its sources, options in Python and a file: whole numbers, the
environment, names of modules, the interpreter.

Rules: `name` is the key as its writer knows it, and opens the text of a refusal; the value of an environment variable is
never repeated, as it may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from pyproc.errors import ConfigError

POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # a label, a part of method names and of variables
WORKERS_MAX, QUEUE_MAX, REQUESTS_MAX = 1024, 1 << 20, 1 << 40
INTENSITY_MAX = 10_000  # deaths that a pool remembers
SHOWN_MAX = 80  # characters of a wrong value that the error repeats


def shown(value: object) -> str:
    """`value` for a message, cut; true and false as in a file, which in Python read well too."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def whole(name: str, value: object, low: int, high: int) -> int:
    """An integer from `low` to `high`. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} is {shown(value)}; write a whole number from {low} to {high}")
    return value


def switch(name: str, value: object) -> bool:
    """True or False. Raises ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}; write true or false, in Python True or False")
    return value


def environment(name: str, value: object) -> dict[str, str]:
    """Names to values, as the kernel takes them. Raises ConfigError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {shown(value)}; give a map of names to values")
    for key, text in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise ConfigError(f"{name} has the name {shown(key)}; names are text, not empty, without '=' and NUL")
        if not isinstance(text, str) or "\0" in text:
            wrong = "with NUL in it" if isinstance(text, str) else f"of type {type(text).__name__}"
            raise ConfigError(f"{name} has {shown(key)} {wrong}; values are text without NUL")
    return dict(value)


def modules(name: str, value: object) -> tuple[str, ...]:
    """Names of modules. Raises ConfigError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{name} is {shown(value)}; give a list of names of modules")
    return tuple(value)


def interpreter(name: str, value: object) -> str | None:
    """The path of an interpreter, or None for the one that runs. Raises ConfigError."""
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"{name} is {shown(value)}; give the path of a Python interpreter as text")
    return path
