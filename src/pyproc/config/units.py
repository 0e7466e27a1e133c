"""Sizes and times as people write them: "64 MiB", "250 ms". A wrong one names the value, the limit and the remedy."""

from __future__ import annotations

import math
import re

from pyproc.errors import ConfigError

SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_MAX = 1 << 50  # bytes; beyond it a value is a slip of the keyboard
TIME_MAX = 10 * 365 * 86400.0  # seconds
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_size(name: str, value: object) -> int:
    """Bytes from an int or a text such as "64 MiB". Raises ConfigError naming `name`."""
    number = _number(name, value, SIZES, '"64 MiB"')
    if not 0 <= number <= SIZE_MAX:
        raise ConfigError(f"{name} is {value!r}, limit is 0 to 1024 TiB; write a size such as \"64 MiB\"")
    return int(number)


def parse_time(name: str, value: object) -> float:
    """Seconds from a number or a text such as "250 ms". Raises ConfigError naming `name`."""
    number = _number(name, value, TIMES, '"30 s"')
    if not 0 < number <= TIME_MAX:
        raise ConfigError(f"{name} is {value!r}, it must be above 0 and below ten years; write a time such as \"30 s\"")
    return number


def _number(name: str, value: object, units: dict[str, float] | dict[str, int], example: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    match = _WRITTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ConfigError(f"{name} is {value!r}; write a number or a text with one of the units "
                          f"{', '.join(units)}, such as {example}")
    return float(match[1]) * units[match[2]]
