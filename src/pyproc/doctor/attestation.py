"""What only a person can attest, as a record with a name, a date, an end and a keyed digest. Pure: bytes in, records out.

    {"v":1,"box":"backup","pool":"","by":"Ada","uid":1000,"at":"2026-…Z","until":"2026-…Z","statement":"…","script":"","mac":"…"}

Rules and reasons:

* `mac` is the last key: HMAC-SHA256 over the line up to `,"mac"`, as in the audit log. It proves that whoever wrote the line could
  read the key, and that nothing was changed since. It does not prove who that was: `by` is a claim, `uid` is the kernel's
  word at the time (ADR 0011).
* A line that does not verify counts for nothing and is reported; it never hides another one.
* The youngest record of a box and a pool counts. A record ends at `until`, and one about code with that code.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

KEY_BYTES = 32
TEXT_MAX = 500  # characters of a name or a statement
FIELDS = {"v": int, "box": str, "pool": str, "by": str, "uid": int, "at": str, "until": str, "statement": str, "script": str}


class Record(NamedTuple):
    """`pool` and `script` (a digest) are "" where the box is about the whole installation; times are UTC."""

    box: str
    pool: str
    by: str
    uid: int
    at: datetime.datetime
    until: datetime.datetime
    statement: str
    script: str


def sign(record: Record, key: bytes) -> str:
    """The line of a record, with its newline."""
    told = {"v": 1, **record._asdict(), "at": _written(record.at), "until": _written(record.until)}
    body = json.dumps(told, ensure_ascii=True, separators=(",", ":"))[:-1]
    return f'{body},"mac":"{_mac(body, key)}"}}\n'


def read(text: str, key: bytes) -> tuple[list[Record], list[str]]:
    """The records that verify, and a sentence for each line that does not."""
    records, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        body, sign, mac = line.partition(',"mac":"')
        proof = f'{_mac(body, key)}"}}'
        if not sign or not hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), proof.encode()):
            faults.append(f"line {number} does not verify: it was changed, or written with another key")
            continue
        try:
            records.append(_record(json.loads(body + "}")))
        except (ValueError, TypeError, KeyError) as error:
            faults.append(f"line {number} is signed and no record: {error}")
    return records, faults


def latest(records: Iterable[Record], box: str, pool: str) -> Record | None:
    """The youngest record of a box; of several in one second the last one."""
    fitting = sorted((record for record in records if (record.box, record.pool) == (box, pool)), key=lambda record: record.at)
    return fitting[-1] if fitting else None


def _record(told: dict[str, Any]) -> Record:
    for name, kind in FIELDS.items():
        if type(told[name]) is not kind:
            raise ValueError(f"{name} is {told[name]!r}")
    if told.keys() != FIELDS.keys() or told.pop("v") != 1:
        raise ValueError("other keys than those of version 1")
    told["at"], told["until"] = _time(told["at"]), _time(told["until"])
    return Record(**told)


def _mac(body: str, key: bytes) -> str:
    return hmac.new(key, body.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _written(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
