"""`pyproc call METHOD [BODY] --worker FILE`: one call in a sandbox, its result as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pyproc.cli import output, target
from pyproc.errors import ConfigError, InvalidArgument
from pyproc_wire.codec import JSON
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.limits import REQUEST_BYTES

SHOWN_CHARS = 40  # of a wrong body


@click.command(short_help="Call one function of a worker script.")
@click.argument("method")
@click.argument("body", required=False)
@click.option("--timeout", metavar="SECONDS", help="Time for the call, once the script is loaded: seconds, or such as \"250 ms\".")
@target.worker
@target.shared
def command(method: str, body: str | None, timeout: str | None, script: str | None, profile: str | None,
            layers: dict[str, str], config: str | None, *, as_json: bool) -> None:
    """Call METHOD with BODY, which is JSON, or `-` for standard input; without it the body is null."""
    seconds = _seconds(timeout)
    value = _body(body)
    with target.open_pool(script, config, profile, layers) as pool:
        result = pool.call(method, value, timeout=seconds)
    text = output.encode(result)  # by itself, so that an error's path begins at the result
    output.write(f'{{"ok":true,"body":{text}}}' if as_json else text)


def _seconds(timeout: str | None) -> float | None:
    if timeout is None:
        return None
    from pyproc.config.units import parse_time

    try:
        value: float | str = float(timeout)
    except ValueError:
        value = timeout
    try:
        return parse_time("--timeout", value)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _body(text: str | None) -> Any:
    if text is None:
        return None
    if text == "-":
        raw = _standard_input(REQUEST_BYTES + 1)
        if len(raw) > REQUEST_BYTES:
            raise InvalidArgument(f"the body is longer than {REQUEST_BYTES} bytes; send less")
    else:
        raw = text.encode("utf-8", "surrogateescape")
    return read_body(raw, standard_input=text == "-")


def read_body(raw: bytes, *, standard_input: bool = False) -> Any:
    """The value that JSON stands for. Raises InvalidArgument that says what is wrong, and how it is written."""
    try:
        value = JSON.decode_value(raw)
    except RemoteProtocolError as error:
        raise InvalidArgument(f"body {_start(raw)} {_wrong(raw, error, standard_input=standard_input)}", path="$") from error
    json.loads(raw, object_pairs_hook=_once)
    return value


def _wrong(raw: bytes, error: RemoteProtocolError, *, standard_input: bool) -> str:
    if error.__cause__ is None:  # it is JSON, and beyond what a call carries
        return f"cannot be sent: {error}"
    if "out of range" in str(error.__cause__):
        return "cannot be sent: a number in it is too large for a float; send it as text"
    why = f"is not JSON: {error.__cause__}"
    if standard_input:
        return why
    if raw[:1].isalpha() or raw[:1] == b"/":
        return f"{why}; a text has quotes of its own within those of the shell: '\"text\"'"
    return f"{why}; quote it for the shell, such as '{{\"value\": 1}}'"


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            raise InvalidArgument(f"body has the key {name[:SHOWN_CHARS]!r} twice in one object; leave one of them", path="$")
        names.add(name)


def _standard_input(size: int) -> bytes:
    if sys.stdin is None:
        raise output.StreamFailed("standard input cannot be read: it is closed")
    try:
        return sys.stdin.buffer.read(size)
    except OSError as error:
        raise output.StreamFailed(f"standard input cannot be read: {error.strerror}") from error


def _start(raw: bytes) -> str:
    text = raw[:4 * SHOWN_CHARS + 4].decode("utf-8", "replace")  # a character has at most 4 bytes
    return repr(text[:SHOWN_CHARS]) + ("…" if len(text) > SHOWN_CHARS else "")
