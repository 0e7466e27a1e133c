"""What a verb prints: text for people, or with --json exactly one JSON document, errors too.

Rules: results on standard output, everything else on standard error; no traceback reaches the user; text of others
(messages, paths, names) is printed with its control characters escaped, as a terminal obeys them, and so is JSON on a
terminal, where the escape is the same value; a reader that went away ends the program quietly. A result that cannot be
written is an error of its own; an error that cannot be told keeps its exit code.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import click

from pyproc.errors import CallError, ConfigError, InvalidArgument, ProtectionUnavailable, PyprocError
from pyproc_wire.codec import JSON
from pyproc_wire.errors import UnencodableValue

USAGE, INTERNAL, IO_FAILED, INTERRUPTED, PIPE_CLOSED = 2, 70, 74, 130, 141  # 70 and 74 as in sysexits.h
PATIENCE_SECONDS = 2.0
GAP = "  "  # between columns
NARROWEST = 8  # characters; a column is not made narrower


class PipeClosed(Exception):
    """Nobody reads standard output any more."""


class StreamFailed(Exception):
    """A standard stream is closed, or its device refuses."""


def encode(value: Any) -> str:
    """One line of JSON. Raises InvalidArgument with the path of what JSON cannot carry."""
    try:
        text = JSON.encode_value(value).decode()
    except UnencodableValue as error:
        raise InvalidArgument(f"the result cannot be shown as JSON: {error}; return text, numbers, lists and maps",
                              path=error.path) from error
    if text.isprintable() or sys.stdout is None or not sys.stdout.isatty():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)  # such characters stand in strings only


def write(text: str) -> None:
    """A line on standard output. Raises PipeClosed, StreamFailed."""
    if sys.stdout is None:
        raise StreamFailed("standard output cannot be written: it is closed")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise PipeClosed from error
    except OSError as error:
        raise StreamFailed(f"standard output cannot be written: {error.strerror}") from error


def tell(text: str) -> None:
    """A line on standard error, if it can be written."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
    except OSError:
        pass  # there is no place left to tell it


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """On a terminal, say what is waited for, where it takes longer than PATIENCE_SECONDS."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    import threading

    teller = threading.Timer(PATIENCE_SECONDS, tell, (show(f"pyproc: waiting for {what}; Ctrl-C ends it"),))
    teller.daemon = True
    teller.start()
    try:
        yield
    finally:
        teller.cancel()
        teller.join()


def settle() -> None:
    """Drop what the streams could not take: the interpreter would try once more at its end, and make the exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _help(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        write(ctx.get_help())
        ctx.exit()


# Click's own is silent where standard output is closed.
help_option = click.option("-h", "--help", is_flag=True, is_eager=True, expose_value=False, callback=_help,
                           help="Show this message and exit.")


def show(text: str) -> str:
    """`text` with control characters escaped, except the line feed."""
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
                   for c in text)


def one_line(text: str) -> str:
    """`text` with every control character escaped."""
    return show(text).replace("\n", "\\n")


def coloured() -> bool:
    """Whether standard output takes colours: a terminal, unless NO_COLOR has any text (no-color.org) or TERM is dumb."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, colour: bool) -> str:
    """`text` shown in `style`: plain, bold or a colour's name."""
    if not colour or style == "plain":
        return show(text)
    return click.style(show(text), bold=True) if style == "bold" else click.style(show(text), fg=style)


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


def fail(told: dict[str, object], *, as_json: bool, hint: str = "") -> None:
    """Tell an error: the JSON document on standard output, or a line on standard error. `hint` belongs to its error id."""
    if as_json:
        try:
            write(encode({"ok": False, "error": told}))
        except StreamFailed:
            pass  # standard error is left
        except PipeClosed:
            return
        else:
            return
    notes = [f"error id {told['error_id']}{hint}"] if "error_id" in told else []
    if "reason" in told:
        notes.append(f"reason {told['reason']}")
    line = f"pyproc: {told['code']}: {told['message']}" + (f" ({'; '.join(notes)})" if notes else "")
    tell(one_line(line))
    denied = told.get("denied")
    if isinstance(denied, dict) and "error_id" in told:  # else the message has said it
        from pyproc.sandbox.denial import advice

        tell(show(f"pyproc: refused by {denied['layer']} (reported by: {denied['reported_by']}): {denied['subject']}\n"
                  f"pyproc: {advice(denied['change'])}"))


def width() -> int | None:
    """Columns of the terminal on standard output, None where it is no terminal and lines may be as long as they are."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def paragraph(text: str) -> str:
    """One text, broken between words where the terminal ends."""
    room = width()
    return "\n".join(_broken(show(text), room, indent="    ") if room else [show(text)])


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell; on a terminal that is narrower, the widest are broken between words."""
    shown = [tuple(one_line(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
    room = width()
    if room:
        words = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in zip(*shown, strict=True)]
        widths = _narrowed(widths, words, room - len(GAP) * (len(widths) - 1))
    lines = []
    for row in shown:
        cells = [_broken(cell, room) for cell, room in zip(row, widths, strict=True)]
        lines += [GAP.join(part.ljust(room) for part, room in zip(parts, widths, strict=True)).rstrip()
                  for parts in zip_longest(*cells, fillvalue="")]
    return "\n".join(lines)


def _narrowed(widths: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """The widest columns cut to one width, so that all fit into `room`: not below a column's longest word, if that is possible, and
    never below NARROWEST."""
    for least in (words, [NARROWEST] * len(words)):
        for cap in range(max(widths), NARROWEST - 1, -1):
            cut = [max(min(width, cap), min(width, word)) for width, word in zip(widths, least, strict=True)]
            if sum(cut) <= room:
                return cut
    return [min(width, NARROWEST) for width in widths]


def _broken(text: str, room: int, indent: str = "") -> list[str]:
    if len(text) <= room:
        return [text]
    return textwrap.wrap(text, room, subsequent_indent=indent, break_on_hyphens=False) or [""]
