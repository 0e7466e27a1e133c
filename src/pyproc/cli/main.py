"""The program `pyproc`: finds the verb, runs it, and turns whatever happens into one message and one exit code.

A verb's module is imported when it is used. Only verbs that work are offered.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pyproc.cli import output
from pyproc.errors import PyprocError

VERBS = ("attack", "bench", "call", "doctor", "functions", "init")


class Verbs(click.Group):
    """The verbs by their modules in `pyproc.cli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"pyproc.cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - the closed list above
        return command


def _version(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        from pyproc import __version__

        output.write(f"pyproc {__version__}")
        ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Show the version and exit.")
def pyproc() -> None:
    """Calls Python functions in sandboxed worker processes."""


def run(argv: Sequence[str]) -> int:
    """Run the program with `argv`; its exit code."""
    before = argv[:argv.index("--")] if "--" in argv else argv
    as_json = "--json" in before
    # Without a handler Python prints the log, tracebacks of functions too; --log asks for that.
    log = logging.getLogger("pyproc")
    sink = logging.StreamHandler() if "--log" in before else logging.NullHandler()
    log.addHandler(sink)
    try:
        return _run(list(argv), as_json=as_json)
    except output.PipeClosed:
        return output.PIPE_CLOSED
    finally:
        log.removeHandler(sink)


def _run(argv: list[str], *, as_json: bool) -> int:
    try:
        code = pyproc.main(argv, "pyproc", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return output.USAGE
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "pyproc"
        output.fail({"code": "usage", "message": f"{error.format_message()} `{where} --help` shows what is possible"},
                    as_json=as_json)
        return output.USAGE
    except (click.exceptions.Abort, KeyboardInterrupt):
        output.fail({"code": "cancelled", "message": "interrupted"}, as_json=as_json)
        return output.INTERRUPTED
    except PyprocError as error:
        output.fail(output.fields(error), as_json=as_json)
        return output.exit_code(error)
    except output.PipeClosed:
        raise
    except Exception as error:  # noqa: BLE001 - the last door: a traceback never reaches the user
        output.fail(output.fields(error), as_json=as_json)
        return output.INTERNAL


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
