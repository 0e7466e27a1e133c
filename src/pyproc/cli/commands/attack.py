"""`pyproc attack`: runs the escape corpus inside this configuration's sandbox, on this machine.

Each attack runs in a call and once more while the script is imported. It proves itself by a control, the same code in a
process without a sandbox, which must succeed; controls never run as root. Exit code 1 where an attack escaped, or was
stopped and its control does not work here, so that nothing is shown.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from pyproc.attack import corpus, run
from pyproc.attack.report import VERDICTS, Report
from pyproc.attack.targets import Targets
from pyproc.cli import output, target

FOUND_SOMETHING = 1  # exit code, as in contract section 4


@click.command(short_help="Try to break out of the sandbox, here.")
@click.option("--list", "only_list", is_flag=True, help="Show the attacks, run none.")
@click.option("--attack", "chosen", multiple=True, metavar="ID|CLASS", help="Only these; may be repeated.")
@click.option("--no-controls", is_flag=True, help="Do not prove that each attack works without a sandbox.")
@target.confined
@target.shared
def command(chosen: tuple[str, ...], profile: str | None, layers: dict[str, str], config: str | None, *, only_list: bool,
            no_controls: bool, as_json: bool) -> int:
    """Run the escape corpus in this configuration's sandbox: each attack in a call and at import, with a control."""
    attacks = _chosen(chosen)
    if only_list:
        _list(attacks, as_json=as_json)
        return 0
    from pyproc import Pool

    sandbox = target.sandbox_of(config, profile, layers)
    states: dict[str, Any] = {}
    began = time.time()

    def make(script: Path, environment: Mapping[str, str]) -> Pool:
        pool = Pool(script, sandbox=sandbox, env=dict(environment), timeout=run.CALL_SECONDS)
        states.update(pool.status()["layers"])
        return pool

    with Targets() as targets:
        results = list(_counted(attacks, make, targets, controls=not no_controls))
        out = [result.id for result in results if result.where != "control" and targets.token in result.answer]
    report = Report(attacks, results, profile=sandbox.profile, controls=not no_controls)
    holds = report.holds and not out
    if as_json:
        output.write(output.encode({
            "ok": holds, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)), "seconds": round(time.time() - began, 1),
            "kernel": platform.release(), "machine": platform.machine(), "uid": os.geteuid(), "profile": sandbox.profile,
            "filter_sha256": _digest(sandbox.profile), "layers": states, "verdicts": dict(report.verdicts),
            "secret_seen_by": out, "attacks": report.document()}))
    else:
        output.write(_text(report, states, sandbox.profile, out))
    return 0 if holds else FOUND_SOMETHING


def _chosen(wanted: tuple[str, ...]) -> list[corpus.Attack]:
    attacks = corpus.load()
    known = {attack.id for attack in attacks} | {attack.kind for attack in attacks}
    for name in wanted:
        if name not in known:
            kinds = ", ".join(sorted({attack.kind for attack in attacks}))
            raise click.UsageError(f"--attack is {name!r}, which is no attack; classes are {kinds}, and --list shows all")
    return [attack for attack in attacks if not wanted or attack.id in wanted or attack.kind in wanted]


def _counted(attacks: list[corpus.Attack], make: run.PoolFactory, targets: Targets, *, controls: bool) -> Iterator[run.Result]:
    """The results; on a terminal with a line that counts them."""
    fitting = [attack for attack in attacks if attack.fits_this_machine]
    total = 2 * len(fitting) + (sum(attack.has_control for attack in fitting) if controls else 0)
    shown = sys.stderr.isatty()
    done = 0

    def count(results: Iterator[run.Result]) -> Iterator[run.Result]:
        nonlocal done
        for result in results:
            done += 1
            if shown:
                click.echo(f"\r{done} of {total} runs", nl=False, err=True)
            yield result

    yield from count(run.run_corpus(make, targets, attacks))
    if controls:
        yield from count(run.run_controls(targets, attacks))
    if shown:
        click.echo("\r" + " " * 40 + "\r", nl=False, err=True)


def _list(attacks: list[corpus.Attack], *, as_json: bool) -> None:
    if as_json:
        output.write(output.encode({"ok": True, "attacks": [
            {"id": attack.id, "title": attack.title, "layers": list(attack.layers), "control": attack.control}
            for attack in attacks]}))
        return
    rows = [("ATTACK", "WHAT IT TRIES", "STOPPED BY ANY OF")]
    rows += [(attack.id, attack.title, ", ".join(attack.layers)) for attack in attacks]
    output.write(output.table(rows))
    output.write(f"\n{len(attacks)} attacks in {len({attack.kind for attack in attacks})} classes")


def _text(report: Report, states: Mapping[str, Mapping[str, str]], profile: str, out: list[str]) -> str:
    rows: list[tuple[str, ...]] = [("CLASS", *(verdict.upper() for verdict in VERDICTS))]
    rows += [(kind, *(str(counts[verdict] or "-") for verdict in VERDICTS)) for kind, counts in report.kinds.items()]
    rows.append(("all", *(str(report.verdicts[verdict] or "-") for verdict in VERDICTS)))
    enforced = sum(state["state"] == "enforced" for state in states.values())
    missing = [f"{name} {state['state']}" for name, state in states.items() if state["state"] != "enforced"]
    lines = [f"kernel {platform.release()}, profile {profile}, {enforced} of {len(states)} layers"
             + (f" ({', '.join(missing)})" if missing else ""), "", output.table(rows), ""]
    for row in report.rows:
        if row.verdict in ("granted", "escaped", "unproven"):
            lines.append(output.show(f"{row.verdict}: {row.attack.id}, {row.attack.title}: {row.proof}"))
        if row.verdict == "escaped":
            lines += [output.show(f"    {where}: {answer}") for where, answer in row.answers.items()]
    lines += [output.show(f"the secret came out of {id}") for id in out]
    lines.append("the sandbox holds" if report.holds and not out else "the sandbox does NOT hold")
    return "\n".join(lines)


def _digest(name: str) -> str:
    """Of the filter that is compiled from the profile: of what is enforced."""
    from pyproc.sandbox import derive, profile

    template, _ = derive.worker_template(profile.named(name))
    return hashlib.sha256(template).hexdigest()
