"""What a verb prints: text for people, or with --json exactly one JSON document, errors too.

Rules: results on standard output, everything else on standard error; no traceback reaches the user; text of others
(messages, paths, names) is printed with its control characters escaped, as a terminal obeys them; a reader that went
away ends the program quietly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from pyproc.errors import CallError, ConfigError, InvalidArgument, ProtectionUnavailable, PyprocError
from pyproc_wire.codec import JSON
from pyproc_wire.errors import UnencodableValue

USAGE, INTERNAL, INTERRUPTED, PIPE_CLOSED = 2, 70, 130, 141


class PipeClosed(Exception):
    """Nobody reads standard output any more."""


def encode(value: Any) -> str:
    """One line of JSON. Raises InvalidArgument with the path of what JSON cannot carry."""
    try:
        return JSON.encode_value(value).decode()
    except UnencodableValue as error:
        raise InvalidArgument(f"the result cannot be shown as JSON: {error}; return text, numbers, lists and maps",
                              path=error.path) from error


def write(text: str) -> None:
    """A line on standard output."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        raise PipeClosed from error


def show(text: str) -> str:
    """`text` with control characters escaped, except the line feed."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
                   for c in text)


def exit_code(error: BaseException) -> int:
    """The exit code of contract section 4."""
    return error.exit_code if isinstance(error, (CallError, ConfigError, ProtectionUnavailable)) else INTERNAL


def fields(error: BaseException) -> dict[str, object]:
    """The error as the JSON document tells it."""
    if isinstance(error, CallError):
        return error.fields()
    if isinstance(error, ProtectionUnavailable):
        return {"code": "protection_unavailable", "message": str(error), "layer": error.layer}
    if isinstance(error, ConfigError):
        return {"code": "config", "message": str(error)}
    if isinstance(error, PyprocError):
        return {"code": "internal", "message": str(error)}
    return {"code": "internal", "message": f"{type(error).__name__}: {error}; this is a fault of pyproc, report it"}


def fail(told: dict[str, object], *, as_json: bool) -> None:
    """Tell an error: the JSON document on standard output, or a line on standard error."""
    if as_json:
        write(encode({"ok": False, "error": told}))
        return
    notes = [f"error id {told['error_id']}, --log shows the cause"] if "error_id" in told else []
    if "reason" in told:
        notes.append(f"reason {told['reason']}")
    line = f"pyproc: {told['code']}: {told['message']}" + (f" ({'; '.join(notes)})" if notes else "")
    sys.stderr.write(show(line) + "\n")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell."""
    shown = [tuple(show(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in shown)
