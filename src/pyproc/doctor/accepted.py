"""What somebody accepts, with a reason: `[doctor] suppress` of the configuration. Pure: the table and a date in.

    [doctor]
    suppress = [{ check = "cpus", pool = "scoring", reason = "one pool on its own machine", until = 2027-01-01 }]

Rules: `check` is a line of the exposure, a box, or a rule of the static analysis; `pool` and `until` may be left out. An entry without
a reason is an error: nobody could ask later whether it still holds. After its last day an entry counts no more and is named.
What is accepted stays in the report and in the exposure; --fail-above does not count it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pyproc.config.values import shown
from pyproc.doctor.boxes import BY_NAME
from pyproc.doctor.exposure import LINES
from pyproc.errors import ConfigError

KEYS = ("check", "pool", "reason", "until")
RULE = re.compile(r"S[0-9]{3}")
CHECKS = (*(line.name for line in LINES), *BY_NAME)


class Accepted(NamedTuple):
    """`pool` "" for all; `until` is the last day, or None."""

    check: str
    pool: str
    reason: str
    until: datetime.date | None


class Acceptance(NamedTuple):
    """What counts today, and what is over."""

    entries: tuple[Accepted, ...]
    expired: tuple[Accepted, ...]

    def reason(self, check: str, pool: str = "") -> str:
        """Why this is accepted, or ""."""
        return next((entry.reason for entry in self.entries if entry.check == check and entry.pool in ("", pool)), "")


def read(section: object, pools: Collection[str], today: datetime.date) -> Acceptance:
    """The entries of the table `doctor`. Raises ConfigError with the place."""
    if not isinstance(section, Mapping):
        raise ConfigError(f"doctor is {shown(section)}; write a table, [doctor]")
    for key in section:
        if key != "suppress":
            raise ConfigError(f"doctor.{key} is unknown; possible is suppress")
    listed = section.get("suppress", [])
    if not isinstance(listed, list):
        raise ConfigError(f"doctor.suppress is {shown(listed)}; write a list of tables with {', '.join(KEYS)}")
    entries = [_entry(f"doctor.suppress[{index}]", entry, pools) for index, entry in enumerate(listed)]
    over = tuple(entry for entry in entries if entry.until is not None and entry.until < today)
    return Acceptance(tuple(entry for entry in entries if entry not in over), over)


def _entry(where: str, given: Any, pools: Collection[str]) -> Accepted:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {shown(given)}; write a table with {', '.join(KEYS)}")
    for key in given:
        if key not in KEYS:
            raise ConfigError(f"{where}.{key} is unknown; possible are {', '.join(KEYS)}")
    check, pool, reason = given.get("check"), given.get("pool", ""), given.get("reason")
    if check not in CHECKS and not (isinstance(check, str) and RULE.fullmatch(check)):
        raise ConfigError(f"{where}.check is {shown(check)}; possible are {', '.join(CHECKS)} and rules such as S301")
    if pool != "" and pool not in list(pools):
        raise ConfigError(f"{where}.pool is {shown(pool)}; the pools are {', '.join(pools)}")
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigError(f"{where}.reason is {'missing' if reason is None else shown(reason)}; write why {check} is accepted")
    return Accepted(check, pool, " ".join(reason.split()), _day(f"{where}.until", given.get("until")))


def _day(where: str, value: object) -> datetime.date | None:
    if isinstance(value, datetime.datetime):
        return value.date()
    if value is None or isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value)  # type: ignore[arg-type]  # another type is refused below
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} is {shown(value)}; write the last day, such as 2027-01-01") from error
