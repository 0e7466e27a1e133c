"""The program behind the entrance: finds the verb, runs it, and turns whatever happens into one message and one exit code.

A verb's module is imported when it is used.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence
from typing import Any, cast

import click

from pyproc.cli import output
from pyproc.cli.main import VERBS, load
from pyproc.errors import PyprocError


class Verbs(click.Group):
    """The verbs by their modules in `pyproc.cli.commands`, or in the folder of a verb that has some of its own."""

    verbs: tuple[str, ...] = VERBS
    folder = ""  # of the modules: "policy."

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        if cmd_name not in self.verbs:
            return None
        command = load(self.folder + cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - the closed list above
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """As it was, but click writes nothing of its own at an interrupt: where that fails, the exit code is lost."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.exceptions.Abort from error


class Causes(logging.Handler):
    """Remembers of which errors the log tells the cause, and of each what the sandbox refused."""

    def __init__(self) -> None:
        super().__init__()
        self.error_ids: set[str] = set()
        self.denials: dict[str, dict[str, str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the error's id and the denial; a traceback is shown by --log only."""
        self.error_ids.update(re.findall(r"^\w+ error_id=(\w+)", record.getMessage()))
        if hasattr(record, "denial"):
            self.denials[record.error_id] = record.denial  # type: ignore[attr-defined]  # as supervisor.denied makes it


def _version(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        from pyproc import __version__

        output.write(f"pyproc {__version__}")
        ctx.exit()


@click.group(cls=Verbs)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Show the version and exit.")
@output.help_option
def pyproc() -> None:
    """Calls Python functions in sandboxed worker processes."""


def run(argv: Sequence[str]) -> int:
    """Run the program with `argv`; its exit code."""
    before = argv[:argv.index("--")] if "--" in argv else argv
    log, causes = logging.getLogger("pyproc"), Causes()
    # Without a handler Python prints the log, tracebacks of functions too; --log asks for that.
    sinks = [causes, logging.StreamHandler()] if "--log" in before else [causes]
    for sink in sinks:
        log.addHandler(sink)
    try:
        return _run(list(argv), causes, as_json="--json" in before, logged=len(sinks) > 1)
    finally:
        for sink in sinks:
            log.removeHandler(sink)


def _run(argv: list[str], causes: Causes, *, as_json: bool, logged: bool) -> int:
    try:
        code = pyproc.main(list(argv), "pyproc", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        output.tell(error.format_message())
        return output.USAGE
    except click.NoSuchOption as error:
        output.fail({"code": "usage", "message": _with_help(_no_such_option(error, argv), argv)}, as_json=as_json)
        return output.USAGE
    except click.ClickException as error:
        output.fail({"code": "usage", "message": _with_help(error.format_message(), argv)}, as_json=as_json)
        return output.USAGE
    except (click.exceptions.Abort, KeyboardInterrupt):
        output.fail({"code": "cancelled", "message": "interrupted"}, as_json=as_json)
        return output.INTERRUPTED
    except PyprocError as error:
        told = output.fields(error)
        error_id = str(told.get("error_id", ""))
        denied = causes.denials.get(error_id)
        if denied is not None:
            told["denied"] = denied
        hint = ", --log shows the cause" if error_id in causes.error_ids and not logged else ""
        output.fail(told, as_json=as_json, hint=hint)
        return output.exit_code(error)
    except output.PipeClosed:
        return output.PIPE_CLOSED
    except output.StreamFailed as error:
        output.fail({"code": "io", "message": str(error)}, as_json=as_json)
        return output.IO_FAILED
    except Exception as error:  # noqa: BLE001 - the last door: a traceback never reaches the user
        output.fail(output.fields(error), as_json=as_json)
        return output.INTERNAL


def _with_help(message: str, argv: list[str]) -> str:
    """`message` as a sentence on one line, and the help that fits."""
    message = " ".join(message.split())
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} `{' '.join(_verb(argv))} --help` shows what is possible"


def _verb(argv: list[str]) -> list[str]:
    """The program and the verb, which is the first argument, as no option stands before it, or the first two."""
    path, group = ["pyproc"], pyproc
    for word in argv:
        if not isinstance(group, Verbs) or word not in group.verbs:
            break
        path.append(word)
        group = cast(Verbs, load(group.folder + word))
    return path


def _no_such_option(error: click.NoSuchOption, argv: list[str]) -> str:
    """With the option that is meant, where one is really like it: click takes `--worker` for `--socket`."""
    if argv[0].startswith("-"):
        return f"No such option before the verb: {error.option_name}. Write it behind: pyproc VERB {error.option_name}"
    close = difflib.get_close_matches(error.option_name, error.possibilities or (), 1, cutoff=0.8)
    return f"No such option: {error.option_name}{f'. Did you mean {close[0]!r}?' if close else ''}"
