"""`pyproc policy explain`: may a worker of this configuration do this, here; if not, which layer refuses it and what would allow it.

The layers are tried on this machine and paths are looked up on it. Nothing of the script is run; an interpreter that
`python` names is asked for its paths.
"""

from __future__ import annotations

import errno
import platform

import click

from pyproc.cli import output, target
from pyproc.errors import ConfigError


@click.command(short_help="May a worker do this, and why.")
@click.argument("words", nargs=-1, required=True, metavar="ACT [WHAT] | \"may POOL ACT WHAT?\"")
@click.option("--write", is_flag=True, help="With open: for writing.")
@target.worker
@target.shared
def command(words: tuple[str, ...], script: str | None, profile: str | None, layers: dict[str, str], config: str | None, *,
            write: bool, as_json: bool) -> None:
    """Answer for one act: open PATH [--write], list PATH, exec PATH, connect HOST:PORT or PATH, listen PORT, fork, thread,
    call NAME [N=VALUE ...]; or for a sentence, such as "may scoring open /srv/x for writing?"."""
    from pyproc.policy import question, survey
    from pyproc.sandbox import acts
    from pyproc.sandbox.explain import judge
    from pyproc.sandbox.paths import look_here
    from pyproc.sandbox.rules import ProfileError

    try:
        asked = question.read(words, write=write, machine=platform.machine())
    except question.QuestionError as error:
        raise click.UsageError(str(error)) from error
    policy = survey.in_force(target.spec_of(script, config, profile, layers, pool=asked.pool))
    try:
        verdict = judge(policy, asked.act, look_here)
    except ProfileError as error:
        raise ConfigError(f"sandbox {error}") from error
    if as_json:
        output.write(output.encode({
            "ok": True, "allowed": verdict.allowed, "act": acts.said(asked.act), "profile": policy.sandbox.profile, "why": verdict.why,
            "layer": verdict.layer or None, "errno": errno.errorcode.get(verdict.errno), "change": verdict.change,
            "changes": [change._asdict() for change in verdict.changes]}))
        return
    lines = [f"{'yes' if verdict.allowed else 'no'}: {acts.said(asked.act)}: {verdict.why}"]
    if not verdict.allowed:
        lines.append(f"refused by: {f'layer {verdict.layer}' if verdict.layer else 'the file itself, no layer'}")
        lines.append(f"to allow it: {verdict.change}" if verdict.changes else verdict.change)
    output.write(output.show("\n".join(lines)))
