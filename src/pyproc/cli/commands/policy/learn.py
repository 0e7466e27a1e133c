"""`pyproc policy learn --worker FILE -- CALLS`: what a worker needs, learnt from its calls, as a diff of the policy.

Learning lets system calls through. It makes pools of its own for that, one after another, and has no way to reach a serving one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyproc.cli import output, target
from pyproc.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from pyproc.policy.observe import Call

NOT_PROVEN = 1  # exit code: a call does not end well under the proposal
LOUD = ("learning runs {script!r} again and again in throw-away sandboxes that let system calls through which the policy refuses. "
        "They have no network, no file but what the policy shows or would be made to show, and serve nobody; "
        "no serving pool is touched. Review the proposal before you use it: it holds what the worker asked for")


@click.command(short_help="Learn from calls what a worker needs.", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="-- METHOD [BODY] ... | FILE")
@click.option("--save", metavar="DIR", help="Write the proposal to DIR: pyproc.toml, and profile.json where one is needed.")
@target.worker
@target.shared
def command(words: tuple[str, ...], script: str | None, profile: str | None, layers: dict[str, str], config: str | None, *,
            save: str | None, as_json: bool) -> int:
    """Make the calls in throw-away sandboxes, and propose the smallest policy under which they end well, as a diff."""
    from pyproc.config.units import parse_time
    from pyproc.policy import proposal
    from pyproc.policy.learn import Learner
    from pyproc.sandbox.rules import ProfileError

    calls = _calls(words)
    spec, options = target.described_spec(script, config, profile, layers)
    folder = Path(save or "").absolute()
    if save is not None:
        _make(folder)
    output.tell(output.show(f"pyproc: {LOUD.format(script=spec.script)}"))
    shown = sys.stderr is not None and sys.stderr.isatty()
    learner = Learner(spec, calls, parse_time("timeout", options.get("timeout", 30.0)),
                      lambda text: output.tell(f"pyproc: {text}") if shown else None)
    try:
        lesson = learner.learn(str(folder / "profile.json"))
    except ProfileError as error:
        raise ConfigError(f"sandbox {error}") from error
    except NotFound as error:
        alone = f"; nor is there a file {words[0]!r}" if len(words) == 1 else ""
        raise NotFound(f"{error.message}{alone}") from error
    source = config or "present"
    unsaved = None if save is None else _save(folder, proposal.file(lesson, options), lesson.own_profile)
    failed = {} if unsaved is None else {"error": output.fields(unsaved)}
    if as_json:
        output.write(output.encode({"ok": lesson.proven and not failed, **failed, **proposal.document(lesson, source, options)}))
    else:
        output.write(output.show(proposal.text(lesson, source)))  # it took long, and is shown though it cannot be kept
    if unsaved is not None:
        if not as_json:
            output.fail(output.fields(unsaved), as_json=False)
        return unsaved.exit_code
    return 0 if lesson.proven else NOT_PROVEN


def _calls(words: tuple[str, ...]) -> list[Call]:
    from pyproc.policy import wanted_calls

    try:
        if len(words) == 1 and Path(words[0]).is_file():
            return wanted_calls.from_lines(Path(words[0]).read_text("utf-8"))
        if len(words) == 1 and ("/" in words[0] or words[0].endswith((".json", ".jsonl"))):
            raise ConfigError(f"calls {words[0]!r} cannot be read: there is no such file; name a file of calls, or METHOD [BODY] ...")
        return wanted_calls.from_words(words)
    except OSError as error:
        raise ConfigError(f"calls {words[0]!r} cannot be read: {error.strerror}") from error
    except (wanted_calls.CallsError, UnicodeDecodeError) as error:
        raise click.UsageError(str(error)) from error


def _make(folder: Path) -> None:
    """Before anything is learnt, so that nothing is learnt in vain."""
    for name in ("pyproc.toml", "profile.json"):
        if os.path.lexists(folder / name):
            raise ConfigError(f"--save {str(folder)!r} has a {name}, which is not overwritten; give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--save {str(folder)!r} cannot be made: {error.strerror}; give a folder that you may write to") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--save {str(folder)!r} cannot be written to; give a folder that you may write to")


def _save(folder: Path, toml: str, own_profile: str) -> ConfigError | None:
    """Write both files or neither; why not, if they could not be written."""
    made: list[Path] = []
    for path, text in ((folder / "pyproc.toml", toml), (folder / "profile.json", own_profile)):
        if not text:
            continue
        try:
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
        except OSError as error:
            for begun in made:
                begun.unlink(missing_ok=True)
            return ConfigError(f"{str(path)!r} cannot be written: {error.strerror}; nothing was saved")
    return None
