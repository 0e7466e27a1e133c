"""The entrance of the program `pyproc`, and the closed list of its verbs. Only verbs that work are offered.

Hardly anything is imported before the `try`, as an interrupt may come at any time and ends in one exit code, without a
traceback. What happens while Python itself loads, and this file, is out of reach from here.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in typing, which takes milliseconds to load
if TYPE_CHECKING:
    from typing import NoReturn

VERBS = ("attack", "bench", "call", "doctor", "functions", "init", "policy")


def load(verb: str) -> object:
    """The command of one of VERBS, or of one below such a verb: "policy.show"."""
    import importlib

    command: object = importlib.import_module(f"pyproc.cli.commands.{verb}").command
    return command


def main() -> NoReturn:
    """The console script."""
    try:
        import datetime  # noqa: F401 - before msgspec, as in pyproc/__init__.py

        _fill_standard_streams()
        from pyproc.cli import output, program

        code = program.run(sys.argv[1:])
        _leave_out_interrupts()
        output.settle()
    except KeyboardInterrupt:
        _leave_out_interrupts()
        code = 130  # output.INTERRUPTED, which may not have been imported yet
    sys.exit(code)


def _leave_out_interrupts() -> None:
    """The exit code stands: another Ctrl-C, pressed in impatience, does not make it that of a signal, nor a traceback."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _fill_standard_streams() -> None:
    """Put /dev/null where a standard descriptor is closed; the next file would take the place, a worker's channel even.

    For Python the stream stays closed: `sys.stdout` is None.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
