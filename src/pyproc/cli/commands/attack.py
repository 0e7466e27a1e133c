"""`pyproc attack`: runs the escape corpus inside this configuration's sandbox, on this machine.

Each attack runs in a call and once more while the script is imported. It proves itself by a control, the same code in a
process without a sandbox, which must succeed; controls never run as root. Then every system call number is called (the
`sweep`). Exit code 1 where an attack escaped, or was stopped and its control does not work here, so that nothing is shown,
or where a number is answered otherwise than the profile says.
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

from pyproc.attack import corpus, run, sweep
from pyproc.attack.report import VERDICTS, Report
from pyproc.attack.targets import Targets
from pyproc.cli import output, target
from pyproc.sandbox import derive
from pyproc.sandbox import profile as profiles

SWEEP = "sweep"  # named like a class, it is no part of the corpus
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

    def make(script: Path, environment: Mapping[str, str], **options: Any) -> Pool:
        pool = Pool(script, sandbox=sandbox, env=dict(environment), timeout=run.CALL_SECONDS, **options)
        states.update(pool.status()["layers"])
        return pool

    swept: list[sweep.Sweep] = []
    with Targets() as targets:
        results = list(_counted(attacks, make, targets, controls=not no_controls))
        if (not chosen or SWEEP in chosen) and sandbox.layers.get("seccomp") != "off":
            swept = sweep.sweep(make, targets, profiles.named(sandbox.profile))
        out = [result.id for result in results if result.where != "control" and targets.token in result.answer]
    lacking = {name: state["state"] for name, state in states.items() if state["state"] != "enforced"}
    report = Report(attacks, results, profile=sandbox.profile, controls=not no_controls, lacking=lacking)
    holds = report.holds and not out and not any(gate.differences for gate in swept)
    if as_json:
        output.write(output.encode({
            "ok": holds, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)), "seconds": round(time.time() - began, 1),
            "kernel": platform.release(), "machine": platform.machine(), "uid": os.geteuid(), "profile": sandbox.profile,
            "filter_sha256": _digest(sandbox.profile), "layers": states, "profile_sha256": _digest_of_rules(sandbox.profile),
            "verdicts": dict(report.verdicts), "sweep": {gate.gate: gate.document() for gate in swept},
            "secret_seen_by": out, "attacks": report.document()}))
    else:
        output.write(_text(report, states, sandbox.profile, out, swept, holds=holds))
    return 0 if holds else FOUND_SOMETHING


def _chosen(wanted: tuple[str, ...]) -> list[corpus.Attack]:
    attacks = corpus.load()
    known = {attack.id for attack in attacks} | {attack.kind for attack in attacks} | {SWEEP}
    for name in wanted:
        if name not in known:
            kinds = ", ".join(sorted({attack.kind for attack in attacks}))
            raise click.UsageError(f"--attack is {name!r}, which is no attack; classes are {kinds} and {SWEEP}, and --list shows all")
    return [attack for attack in attacks if not wanted or attack.id in wanted or attack.kind in wanted]


def _counted(attacks: list[corpus.Attack], make: run.PoolFactory, targets: Targets, *, controls: bool) -> Iterator[run.Result]:
    """The results; on a terminal with a line that counts them."""
    total = run.runs(attacks, controls=controls)
    shown = sys.stderr is not None and sys.stderr.isatty()
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


def _text(report: Report, states: Mapping[str, Mapping[str, str]], profile: str, out: list[str],
          swept: list[sweep.Sweep], *, holds: bool) -> str:
    rows: list[tuple[str, ...]] = [("CLASS", *(verdict.upper() for verdict in VERDICTS))]
    rows += [(kind, *(str(counts[verdict] or "-") for verdict in VERDICTS)) for kind, counts in report.kinds.items()]
    rows.append(("all", *(str(report.verdicts[verdict] or "-") for verdict in VERDICTS)))
    enforced = sum(state["state"] == "enforced" for state in states.values())
    missing = [f"{name} {state['state']}" for name, state in states.items() if state["state"] != "enforced"]
    lines = [f"kernel {platform.release()}, profile {profile}, {enforced} of {len(states)} layers"
             + (f" ({', '.join(missing)})" if missing else ""), ""]
    lines += [output.table(rows), ""] if report.rows else []
    for row in report.rows:
        if row.verdict in ("granted", "open", "escaped", "unproven"):
            lines.append(output.show(f"{row.verdict}: {row.attack.id}, {row.attack.title}: {row.proof}"))
        if row.verdict == "escaped":
            lines += [output.show(f"    {where}: {answer}") for where, answer in row.answers.items()]
    lines += [output.show(f"the secret came out of {id}") for id in out]
    if swept:
        calls: list[tuple[str, ...]] = [("EVERY CALL NUMBER", "CALLED", "ALLOWED", "REFUSED", "KILLED", "DIFFERENT", "LEFT OUT")]
        calls += [(gate.gate, *(str(count or "-") for count in (gate.called, *(gate.ends[end] for end in sweep.ENDINGS),
                   len(gate.differences), len(gate.skipped)))) for gate in swept]
        lines += ["", output.table(calls), "", *(output.show(text) for gate in swept for text in gate.differences)]
        lines += [output.show(f"{gate.gate} {number} is left out: {why}") for gate in swept for number, why in gate.skipped.items()]
        lines.append("")
    lines.append("the sandbox holds" if holds else "the sandbox does NOT hold")
    return "\n".join(lines)


def _digest(name: str) -> str:
    """Of the filter that is compiled from the profile: of what is enforced."""
    template, _ = derive.worker_template(profiles.named(name))
    return hashlib.sha256(template).hexdigest()


def _digest_of_rules(name: str) -> str:
    """Of the profile, machine, default and rules with their reasons: of what was meant."""
    return hashlib.sha256(repr(profiles.named(name)).encode()).hexdigest()
