"""Who broke a rule: we (`LocalProtocolError`) or the peer (`RemoteProtocolError`).

A local error is a bug or an unsendable value on our side: nothing was sent, the connection is as it was. A
remote error is the peer's: it says with which code it would be answered, whether the connection is over,
and what was complete in the same chunk before it, because an answer that arrived whole must not be lost to
what follows it.

Texts may quote the peer: `printable` bounds and escapes them first, so that no error text can forge a log
line.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from pyproc_wire.limits import INT_MAX, INT_MIN, PATH_CHARS

QUOTED_CHARS: Final = 200
"""Characters of foreign text in an error: a name and a reason fit, a payload does not."""


def printable(text: str, limit: int = QUOTED_CHARS) -> str:
    """`text` with what is not printable escaped, cut at `limit` characters."""
    shown = text[: limit + 1]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators and what turns the direction of writing."""


def without_controls(text: str) -> str:
    """`text` with control characters escaped (`\\n`, `\\x1b`) and all else as it was."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def step(key: object) -> str:
    """One step of a path into a map: `.key` for a plain name, `["a b"]` for others, escaped as in JSON."""
    if isinstance(key, str):
        if key.isascii() and key.isidentifier():
            return f".{key}"
        return f"[{json.dumps(key[:PATH_CHARS])}]"
    shown = type(key).__name__
    # Only these: the repr of any other key is foreign code, that of a huge integer is an error.
    if isinstance(key, float | bytes | None) or (isinstance(key, int) and INT_MIN <= key <= INT_MAX):
        shown = repr(key)
    return f"[{json.dumps(printable(shown, 64))}]"


class WireError(Exception):
    """Root of what this package raises."""


class LocalProtocolError(WireError):
    """Our side broke a rule; nothing was sent. `code` is what a caller would be told."""

    def __init__(self, text: str, *, code: str = "internal") -> None:
        super().__init__(text)
        self.code = code


class UnencodableValue(LocalProtocolError, ValueError):
    """A value that the codec cannot carry unchanged.

    `path` is where it stands (`$.rows[2]`, cut at 256 characters), `type_name` the name of its type.
    """

    def __init__(self, why: str, value: object) -> None:
        super().__init__(why, code="invalid_argument")
        self.why = why
        self.type_name = printable(type(value).__name__)
        self._steps: list[str] = []

    def beneath(self, key: object) -> None:
        """Say that the place so far lies in a map, at `key`: called while the walk unwinds."""
        self._steps.append(step(key))

    def beneath_index(self, index: int) -> None:
        """Say that the place so far lies in a sequence, at `index`."""
        self._steps.append(f"[{index}]")

    @property
    def path(self) -> str:
        return ("$" + "".join(reversed(self._steps)))[:PATH_CHARS]

    def __str__(self) -> str:
        return f"{self.why} at {self.path}"


class RemoteProtocolError(WireError):
    """The peer broke a rule.

    `code` is `invalid_argument` or `payload_too_large`. The connection is over. `id` is the call that is to blame
    if one is. `before` holds what was complete in the same chunk: payloads from a
    frame reader, events from a connection.
    """

    def __init__(self, text: str, *, code: str = "invalid_argument", id: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.id = id
        self.before: list[Any] = []
