"""`pyproc call METHOD [BODY] --worker FILE`: one call in a sandbox, its result as JSON."""

from __future__ import annotations

import sys
from typing import Any

import click

from pyproc.cli import output, target
from pyproc.errors import ConfigError, InvalidArgument
from pyproc_wire.codec import JSON
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.limits import REQUEST_BYTES


@click.command(short_help="Call one function of a worker script.")
@click.argument("method")
@click.argument("body", required=False)
@click.option("--timeout", metavar="SECONDS", help="Time for the call: seconds, or such as \"250 ms\".")
@target.worker
@target.shared
def command(method: str, body: str | None, timeout: str | None, script: str | None, profile: str | None,
            layers: tuple[str, ...], config: str | None, *, as_json: bool) -> None:
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
        raise click.BadParameter(str(error), param_hint="--timeout") from error


def _body(text: str | None) -> Any:
    if text is None:
        return None
    if text == "-":
        raw = sys.stdin.buffer.read(REQUEST_BYTES + 1)
        if len(raw) > REQUEST_BYTES:
            raise InvalidArgument(f"the body is longer than {REQUEST_BYTES} bytes; send less")
    else:
        raw = text.encode("utf-8", "surrogateescape")
    try:
        return JSON.decode_value(raw)
    except RemoteProtocolError as error:
        shown = raw[:40].decode("utf-8", "replace")
        raise InvalidArgument(f"body {shown!r} is not JSON: {error}; quote it for the shell, such as '{{\"value\": 1}}'",
                              path="$") from error
