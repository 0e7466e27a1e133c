"""What may be asked of a policy, and how it is written: as an act, or as a sentence. Pure: words in, an act out.

    open PATH · open PATH --write · list PATH · exec PATH, and the other acts on paths of `acts.KINDS`
    connect HOST:PORT · connect PATH · listen PORT · fork · thread
    call NAME [N=VALUE ...]                       the filters alone, for a system call with arguments 0 to 5
    "may POOL open PATH for writing?"             the same in a sentence; POOL is a pool of the configuration

Rejected: a grammar of its own for arguments of calls by their names in C (a table for 380 calls, wrong the day one changes).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from pyproc.sandbox import acts
from pyproc.sandbox.acts import Act, SystemCall
from pyproc.sandbox.rules import U64, syscall_table

PORT_MAX: Final = 65535
ARGUMENTS: Final = 6  # of a system call
_ON_PATHS: Final = ", ".join(f"{kind} PATH" for kind in acts.KINDS if kind in acts.ON_PATHS - {"open", "write"})
FORMS: Final = f"open PATH [--write], {_ON_PATHS}, connect HOST:PORT or PATH, listen PORT, fork, thread, call NAME [N=VALUE ...]"

FORM_OF: Final = {"open": "open PATH [--write]", "connect": "connect HOST:PORT or connect PATH", "listen": "listen PORT"}  # others PATH

_SENTENCE: Final = re.compile(r"(?:may|can|could)\s+(?P<pool>[\w.-]+)\s+(?P<act>.+?)\s*\??", re.IGNORECASE | re.DOTALL)
_PURPOSE: Final = re.compile(r"(?P<rest>.+?)\s+for\s+(?P<purpose>reading|writing|appending)", re.IGNORECASE | re.DOTALL)
_VERBS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("connect to", ("connect",)), ("listen on", ("listen",)), ("start a thread", ("thread",)), ("start threads", ("thread",)),
    ("make the system call", ("call",)), ("write to", ("open", "--write")),
    ("write", ("open", "--write")), ("create", ("open", "--write")),
    ("read from", ("open",)), ("read", ("open",)), ("open", ("open",)), ("list", ("list",)), ("execute", ("exec",)), ("run", ("exec",)),
    ("exec", ("exec",)), ("delete", ("remove",)), ("fork", ("fork",)), ("connect", ("connect",)), ("listen", ("listen",)),
    ("call", ("call",)),
)  # fmt: skip
"""How a sentence says an act, longer phrases first."""


class QuestionError(ValueError):
    """Words that are no question; the text says what is possible."""


class Question(NamedTuple):
    """`pool`: whom a sentence asks about, else None."""

    act: Act
    pool: str | None = None


def read(words: Sequence[str], *, write: bool = False, machine: str = "x86_64") -> Question:
    """The question that `words` ask: one sentence, or an act and what it is done to. Raises QuestionError."""
    if len(words) == 1 and " " in words[0].strip():
        return _sentence(words[0].strip(), machine)
    return Question(_act(list(words), machine, write=write))


def _sentence(text: str, machine: str) -> Question:
    said = _SENTENCE.fullmatch(text)
    if said is None:
        raise QuestionError(f"question is {text[:200]!r}; write \"may POOL ACT?\", where an act is one of {FORMS}")
    act = said["act"]
    purpose = _PURPOSE.fullmatch(act)
    rest, write = (purpose["rest"], purpose["purpose"].lower() != "reading") if purpose else (act, False)
    for phrase, words in _VERBS:
        if rest.lower() == phrase or rest.lower().startswith(phrase + " "):
            named = rest[len(phrase):].strip().strip("\"'")
            arguments = named.split() if words[0] == "call" else [named] if named else []
            return Question(_act([words[0], *arguments], machine, write=write or "--write" in words), said["pool"])
    raise QuestionError(f"question asks for {act[:200]!r}, which is no act; possible are {FORMS}")


def _act(words: list[str], machine: str, *, write: bool) -> Act:
    kind, rest = (words[0], words[1:]) if words else ("", [])
    if kind == "call":
        return _call(rest, machine)
    if kind in ("fork", "thread") and not rest:
        return Act(kind)
    if kind in acts.KINDS and not any(rest):
        raise QuestionError(f"act {kind!r} lacks what it is done to; write {FORM_OF.get(kind, f'{kind} PATH')}")
    if kind not in acts.KINDS or len(rest) != 1 or not rest[0]:
        raise QuestionError(f"act is {' '.join(words)[:200]!r}; possible are {FORMS}")
    if write and kind != "open":
        raise QuestionError(f"--write belongs to open, act is {kind!r}")
    if kind in acts.ON_PATHS:
        if not rest[0].startswith("/"):
            raise QuestionError(f"path is {rest[0][:200]!r}; write it from /, as a worker's folder is not yours")
        return Act("write" if write else kind, rest[0])
    return _address(kind, rest[0])


def _address(kind: str, text: str) -> Act:
    if text.startswith("/"):
        return Act(kind, text)
    host, colon, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) <= PORT_MAX or (not host and kind == "connect") or (colon and not host):
        remedy = "HOST:PORT or a path from /" if kind == "connect" else "PORT, HOST:PORT or a path from /"
        raise QuestionError(f"address is {text[:200]!r}; write {remedy}, with a port from 1 to {PORT_MAX}")
    return Act(kind, host=host.strip("[]") or "0.0.0.0", port=int(port))  # noqa: S104 - the address of a question


def _call(words: list[str], machine: str) -> Act:
    if not words or words[0] not in syscall_table(machine):
        raise QuestionError(f"system call is {' '.join(words)[:80]!r}, which {machine} does not have; write its name as in the manual")
    arguments = [0] * ARGUMENTS
    used = 0
    for word in words[1:]:
        place, sign, value = word.rpartition("=")
        try:
            index = int(place) if sign else used
            arguments[index if 0 <= index < ARGUMENTS else ARGUMENTS] = int(value, 0) & U64
        except (ValueError, IndexError) as error:
            raise QuestionError(f"argument is {word[:80]!r}; write N=VALUE with N from 0 to {ARGUMENTS - 1} and a number") from error
        used = max(used, index + 1)
    return Act("call", call=SystemCall((words[0],), tuple(arguments[:used])))
