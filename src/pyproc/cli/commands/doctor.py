"""`pyproc doctor`: what is enforced here for each pool, how exposed that leaves it, and the guide's checklists.

Each layer is really tried, and each pool is started once. Exit code 78 where a pool refuses to start, 1 where an exposure is
above --fail-above, else 0. `--attest BOX` keeps a record of what only a person can say, and runs nothing.
"""

from __future__ import annotations

import datetime
import os
import platform
from functools import partial
from pathlib import Path

import click

from pyproc import Sandbox
from pyproc.cli import output, target
from pyproc.config import load
from pyproc.config.model import Configuration, PoolConfig
from pyproc.config.units import parse_time
from pyproc.doctor import accepted, attestation, checklist, exposure, records, remedies, report, script, survey
from pyproc.doctor.boxes import ATTESTED, BY_NAME, Box
from pyproc.errors import ConfigError, ProtectionUnavailable
from pyproc.host import procfs
from pyproc.sandbox.probe import NEEDS

ABOVE = 1  # exit code: the check found something
LONGEST_DAYS = 400  # a record that outlives this is nobody's word any more


class Exposure(click.FloatRange):
    """What --fail-above takes, by the name that a refusal says."""

    name = "number from 0 to 10"


@click.command(short_help="Show what is enforced here, the exposure, the checklists.")
@click.option("--fail-above", type=Exposure(0, 10), default=10.0, show_default=True, metavar="N",
              help="Exit with 1 where a pool's exposure, less what is accepted, is above N.")
@click.option("--attest", metavar="BOX", type=click.Choice(ATTESTED),
              help=f"Sign for a box, and do nothing else: {', '.join(ATTESTED)}.")
@click.option("--by", metavar="NAME", help="Who attests.")
@click.option("--statement", metavar="TEXT", help="What is attested; the box's title if not given.")
@click.option("--expires", metavar="TIME", help="How long it holds, such as \"90 d\".")
@target.worker
@target.shared
def command(script: str | None, profile: str | None, layers: dict[str, str], config: str | None, fail_above: float, *,
            as_json: bool, **attested: str | None) -> int:
    """Show for each pool which layers are enforced, its exposure from 0 to 10, and the security guide's checklists."""
    flags = load.Flags(target.named_pool(), script, profile, layers)
    made = target.configuration(config, flags)
    if attested["attest"]:
        _attest(made, attested, as_json=as_json)
        return 0
    if attested["by"] or attested["statement"] or attested["expires"]:
        raise click.UsageError("--by, --statement and --expires belong to --attest BOX")
    told = _examine(made, flags, fail_above)
    if as_json:
        output.write(output.encode(report.document(told)))
    else:
        output.write(report.text(told, output.table, partial(output.paint, colour=output.coloured())))
    return ProtectionUnavailable.exit_code if told.refusal else ABOVE if told.above else 0


def _examine(made: Configuration | None, flags: load.Flags, limit: float) -> report.Report:
    now = datetime.datetime.now(datetime.UTC)
    chosen = {} if made is None else {name: pool for name, pool in made.pools.items() if flags.pool in (None, name)}
    if made is not None and made.path:
        with load.named(made.path):
            acceptance = accepted.read(made.sections.get("doctor", {}), made.pools, now.date())
    else:
        acceptance = accepted.read({}, (), now.date())
    granted, abi = survey.granted()
    evidence = _evidence(made, chosen, flags, granted)
    site = _site(made, now, acceptance)
    pools = {}
    for name, found in evidence.items():
        rows = exposure.assess(found.facts)
        reasons = {row.name: why for row in rows if row.points and (why := acceptance.reason(row.name, name))}
        pools[name] = report.Pool(found.facts, rows, reasons)
    switches = _switches()
    helps = {name: remedies.remedy(name, general, os.geteuid(), switches) for name, (_, general) in NEEDS.items()}
    return report.Report(
        time=f"{now:%Y-%m-%dT%H:%M:%SZ}", kernel=platform.release(), uid=os.geteuid(), landlock_abi=abi,
        needs={name: needs for name, (needs, _) in NEEDS.items()}, remedies=helps, pools=pools,
        checklist=checklist.judge(evidence, site), acceptance=acceptance, limit=limit)


def _evidence(made: Configuration | None, chosen: dict[str, PoolConfig], flags: load.Flags,
              granted: dict[str, str]) -> dict[str, checklist.Pool]:
    if not chosen:
        sandbox = Sandbox("strict" if flags.profile is None else flags.profile, layers=flags.layers)
        return {survey.DEFAULTS: survey.of_defaults(sandbox, granted)}
    beside = [] if made is None or not made.path else [Path(made.path).absolute().parent]
    return {name: survey.of_pool(pool, granted, (Path(pool.script).parent, *beside)) for name, pool in chosen.items()}


def _site(made: Configuration | None, now: datetime.datetime, acceptance: accepted.Acceptance) -> checklist.Site:
    service = {} if made is None else made.sections.get("service", {})
    if not isinstance(service, dict):
        raise ConfigError(f"config {made.path if made else ''!r}: service is {service!r}; write a table, [service]")
    signed, faults = ([], []) if made is None or not made.path else records.read(made.path)
    sockets = {str(service[key]): _modes(str(service[key])) for key in ("socket", "admin_socket") if key in service}
    return checklist.Site(now, sockets, "socket_group" in service, str(service.get("user", "")), signed, faults, acceptance)


def _attest(made: Configuration | None, told: dict[str, str | None], *, as_json: bool) -> None:
    box = BY_NAME[str(told["attest"])]
    if made is None or not made.path:
        raise click.UsageError("--attest keeps its record beside the configuration; give --config FILE")
    who, statement = (told["by"] or "").strip(), (told["statement"] or box.title).strip()
    if not who:
        raise click.UsageError("--attest needs --by NAME: a record without a name is nobody's")
    for flag, text in (("--by", who), ("--statement", statement)):
        if len(text) > attestation.TEXT_MAX or not text.isprintable():
            raise click.UsageError(f"{flag} has {len(text)} characters; write one line of at most {attestation.TEXT_MAX}")
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    until = now + _lasting(box, told["expires"])
    pool = target.only(made) if box.of_code else None
    if box.of_code and pool is None:
        raise ConfigError(f"config {made.path!r}: it has 0 pools, and {box.name} is about a pool's script")
    digest = _digest(pool) if pool else ""
    record = attestation.Record(box.name, pool.name if pool else "", who, os.getuid(), now, until, statement, digest)
    path = records.append(made.path, record)
    if as_json:
        output.write(output.encode({"ok": True, "file": str(path), **record._asdict(), "at": f"{now:%Y-%m-%dT%H:%M:%SZ}",
                                    "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}))
        return
    output.write(output.show(f"{box.name} is attested by {who} until {until:%Y-%m-%d}, in {path}"))


def _digest(pool: PoolConfig) -> str:
    source = survey.source(pool.script)
    if source is None:
        raise ConfigError(f"script {pool.script!r} cannot be read; a review is of a script that is there")
    return script.read(source).digest


def _lasting(box: Box, expires: str | None) -> datetime.timedelta:
    if expires is None:
        return datetime.timedelta(days=box.days)
    try:
        seconds = parse_time("--expires", expires)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if seconds > LONGEST_DAYS * 86400:
        raise click.UsageError(f"--expires is {expires!r}, the longest is {LONGEST_DAYS} d: a record that nobody renews is no evidence")
    return datetime.timedelta(seconds=seconds)


def _modes(path: str) -> tuple[int, int] | None:
    try:
        return os.lstat(path).st_mode & 0o777, os.stat(os.path.dirname(path) or ".").st_mode & 0o777
    except (OSError, ValueError):  # ValueError: NUL in the path
        return None


def _switches() -> dict[str, str]:
    found = {}
    for name, path in remedies.SWITCHES.items():
        try:
            found[name] = procfs.read(path).decode("ascii", "replace").strip()
        except OSError:
            continue  # this kernel does not have it
    return found
