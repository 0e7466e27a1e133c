"""Sizes and times as people write them: "64 MiB", "250 ms". A wrong one names the value, the limit and the remedy.

Rules: a text needs a unit, as "30" may mean seconds to one reader and milliseconds to another. Sizes are in powers of 1024
and named so: "MB" is refused, not guessed. A number is bytes or seconds. Binary fractions are cut to whole bytes. Nothing
that a user writes leads to another error than ConfigError, however long or large it is.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from pyproc.errors import ConfigError

SIZES = {"B": Fraction(1), "KiB": Fraction(1 << 10), "MiB": Fraction(1 << 20), "GiB": Fraction(1 << 30),
         "TiB": Fraction(1 << 40)}
TIMES = {"us": Fraction(1, 10**6), "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600),
         "d": Fraction(86400)}
SIZE_MAX = 1 << 50  # bytes; beyond it a value is a slip of the keyboard
TIME_MAX = 10 * 365 * 86400.0  # seconds
TEXT_MAX = 64  # characters; a longer text is no size, and is not parsed
SHOWN_MAX = 80  # characters of a wrong value that the error repeats
_WRITTEN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


def parse_size(name: str, value: object) -> int:
    """Bytes from an int or a text such as "64 MiB". Raises ConfigError naming `name`."""
    if isinstance(value, float):
        raise ConfigError(f"{name} is {_shown(value)}, bytes are whole; write an int or a size such as \"64 MiB\"")
    number = _number(name, value, SIZES, '"64 MiB"')
    if not 0 <= number <= SIZE_MAX:
        raise ConfigError(f"{name} is {_shown(value)}, limit is 0 to 1024 TiB; write a size such as \"64 MiB\"")
    return int(number)


def parse_time(name: str, value: object) -> float:
    """Seconds from a number or a text such as "250 ms". Raises ConfigError naming `name`."""
    number = _number(name, value, TIMES, '"30 s"')
    if not 0 < number <= TIME_MAX:
        raise ConfigError(f"{name} is {_shown(value)}, it must be above 0 and at most ten years; "
                          "write a time such as \"30 s\"")
    return float(number)


def time_text(seconds: float) -> str:
    """Seconds as they are written, which `parse_time` reads as the same number."""
    return f"{Decimal(repr(seconds)).normalize():f} s"


def _number(name: str, value: object, units: dict[str, Fraction], example: str) -> Fraction:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return Fraction(value)
        except (OverflowError, ValueError) as error:  # infinite, not a number
            raise ConfigError(f"{name} is {_shown(value)}; write a number or a text such as {example}") from error
    match = _WRITTEN.fullmatch(value) if isinstance(value, str) and len(value) <= TEXT_MAX else None
    if match is None or match[2] not in units:
        raise ConfigError(f"{name} is {_shown(value)}; write a number or a text with one of the units "
                          f"{', '.join(units)}, such as {example}")
    return Fraction(match[1]) * units[match[2]]


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # its decimal digits are slow or refused by the interpreter
        return f"{'-' if value < 0 else ''}a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
