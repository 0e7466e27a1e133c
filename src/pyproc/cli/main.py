"""The entrance of the program `pyproc`, and the closed list of its verbs. Only verbs that work are offered.

Hardly anything is imported before `main` begins, as an interrupt may come at any time and ends in one exit code, without a
traceback. Until all is loaded it ends the process on the spot: nothing has begun, and libraries make other errors of an interrupt in
their imports. What happens while Python itself loads, and this file, is out of reach from here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps, without the milliseconds of its enumerations
import os
import sys

TYPE_CHECKING = False  # as in typing, which takes milliseconds to load
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130  # as output has it, which may not have been imported yet
VERBS = ("attack", "bench", "call", "doctor", "functions", "init", "policy")


def load(verb: str) -> object:
    """The command of one of VERBS, or of one below such a verb: "policy.show"."""
    import importlib

    command: object = importlib.import_module(f"pyproc.cli.commands.{verb}").command
    return command


def main() -> NoReturn:
    """The console script."""
    heard = _signal.getsignal(_signal.SIGINT)
    try:
        if heard is _signal.default_int_handler:  # else whoever started us has chosen
            _signal.signal(_signal.SIGINT, _leave)
        import datetime  # noqa: F401 - before msgspec, as in pyproc/__init__.py

        _fill_standard_streams()
        from pyproc.cli import output, program

        _signal.signal(_signal.SIGINT, heard)
        code = program.run(sys.argv[1:])
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # another Ctrl-C, pressed in impatience, changes nothing any more
        output.settle()
    except KeyboardInterrupt:
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        code = INTERRUPTED
    sys.exit(code)


def _leave(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)


def _fill_standard_streams() -> None:
    """Put /dev/null where a standard descriptor is closed; the next file would take the place, a worker's channel even.

    For Python the stream stays closed: `sys.stdout` is None.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
