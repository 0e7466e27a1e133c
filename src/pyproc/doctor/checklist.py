"""The guide's boxes, each judged from what was measured in this run, or from what a person has signed. Pure.

    Pool (one per pool), Site ──▶ judge ──▶ Finding: pass, fail or not applicable, with the evidence and the remedy

Rules: a box without evidence fails; "not applicable" needs a reason too. A box of several pools passes when it does for each
that it applies to. Nothing here is remembered: evidence is as old as the run, or as its record says.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyproc.doctor import attestation
from pyproc.doctor.accepted import RULE, Acceptance
from pyproc.doctor.attestation import Record
from pyproc.doctor.boxes import BOXES, Box
from pyproc.doctor.exposure import WALLS
from pyproc.doctor.facts import Facts
from pyproc.doctor.lint import REMEDY, Verdict
from pyproc.doctor.pins import Pins
from pyproc.doctor.script import Script

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"
PRIVATE_SOCKETS = {0o600: 0o700, 0o660: 0o710}  # mode of the socket -> of its folder; the second with socket_group


class Judged(NamedTuple):
    """Of one pool or of the installation."""

    state: str
    evidence: str
    remedy: str = ""


class Finding(NamedTuple):
    """A box: `evidence` has a line for each pool that was looked at; `as_of` is when; `accepted` why a failure is."""

    name: str
    group: str
    title: str
    state: str
    evidence: tuple[str, ...]
    remedy: str
    as_of: str
    accepted: str


@dataclass(frozen=True)
class Pool:
    """What is known of one pool. `script` None: there is none, the defaults are looked at. `functions`: None where it did not start.
    `told`: the text that a caller saw of an exception with a secret in it, and the secret."""

    facts: Facts
    script: Script | None
    functions: Mapping[str, Mapping[str, Any]] | None
    lint: Verdict | None
    pins: Pins | None
    told: tuple[str, str]


@dataclass(frozen=True)
class Site:
    """What is known of the installation. `sockets`: path -> (mode, its folder's mode), None where it does not exist; `faults` of
    the records."""

    now: datetime.datetime
    sockets: Mapping[str, tuple[int, int] | None]
    socket_group: bool
    becomes: str
    records: Sequence[Record]
    faults: Sequence[str]
    accepted: Acceptance


def judge(pools: Mapping[str, Pool], site: Site) -> list[Finding]:
    """Every box, once, in the order of BOXES."""
    return [_finding(box, pools, site) for box in BOXES]


def _finding(box: Box, pools: Mapping[str, Pool], site: Site) -> Finding:
    if box.days and not box.of_code:
        judged = {"": _attested(box, "", "", site)}
    elif box.name in OF_THE_SITE:
        judged = {"": OF_THE_SITE[box.name](site)}
    elif box.of_code:
        judged = {name: _of_code(box, name, pool, site) for name, pool in pools.items()}
    else:
        judged = {name: OF_A_POOL[box.name](pool, site) for name, pool in pools.items()}
    states = {each.state for each in judged.values()}
    failing = [name for name, each in judged.items() if each.state == FAIL]
    reasons = [site.accepted.reason(box.name, name) for name in failing]
    evidence = tuple(f"{name}: {each.evidence}" if name else each.evidence for name, each in judged.items())
    signed = [attestation.latest(site.records, box.name, name) for name in judged] if box.days else []
    oldest = min((record.at for record in signed if record), default=site.now)
    return Finding(box.name, box.group, box.title, FAIL if failing else PASS if PASS in states else NOT_APPLICABLE, evidence,
                   next((each.remedy for each in judged.values() if each.state == FAIL), ""), f"{oldest:%Y-%m-%dT%H:%M:%SZ}",
                   "; ".join(dict.fromkeys(reasons)) if reasons and all(reasons) else "")


def _input_validation(pool: Pool, site: Site) -> Judged:
    if pool.script is None:
        return Judged(NOT_APPLICABLE, "no worker script is configured")
    if pool.functions is None:
        return Judged(FAIL, f"the script was not loaded: {pool.facts.refusal}", "make the pool start")
    exposed = {name: told for name, told in pool.functions.items() if name != "health"}
    plain = sorted(name for name, told in exposed.items() if not told.get("input"))
    if plain:
        return Judged(FAIL, f"{len(plain)} of {len(exposed)} functions take any body: {', '.join(plain)}",
                      "annotate the parameter: req: dict, or a dataclass or Struct")
    return Judged(PASS, f"{len(exposed)} of {len(exposed)} functions check each body against a schema")


def _error_messages(pool: Pool, site: Site) -> Judged:
    text, secret = pool.told
    if not text:
        return Judged(FAIL, f"no function could be called: {pool.facts.refusal}", "make the pool start")
    if secret in text:
        return Judged(FAIL, f"the caller of a function that raised saw {text!r}", "report this: it is a fault of pyproc")
    broad = pool.script.broad if pool.script else ()
    if broad:
        return Judged(FAIL, f"public_errors publishes the text of any exception in line {', '.join(map(str, broad))}",
                      "name the exceptions whose text is written for callers")
    public = f"; PublicError is raised in line {', '.join(map(str, pool.script.public))}" if pool.script and pool.script.public else ""
    return Judged(PASS, f"of an exception with a secret in it the caller saw {text!r}{public}")


def _pinned(pool: Pool, site: Site) -> Judged:
    if pool.script is None:
        return Judged(NOT_APPLICABLE, "no worker script is configured")
    if pool.script.unread:
        return Judged(FAIL, f"the script cannot be parsed: {pool.script.unread}", "save it as Python")
    if not pool.script.imports:
        return Judged(NOT_APPLICABLE, "the script imports nothing but the standard library")
    imports = ", ".join(sorted(pool.script.imports))
    if pool.pins is None or pool.pins.faults:
        return Judged(FAIL, f"imports {imports}; {'; '.join(pool.pins.faults[:5]) if pool.pins else 'nothing was looked at'}",
                      "pip-compile --generate-hashes, or a lock file, beside the script")
    return Judged(PASS, f"imports {imports}; pinned with hashes in {pool.pins.file}")


def _static_analysis(pool: Pool, site: Site) -> Judged:
    if pool.script is None:
        return Judged(NOT_APPLICABLE, "no worker script is configured")
    if pool.lint is None:
        return Judged(FAIL, f"the script cannot be read: {pool.facts.refusal}", "make the pool start")
    if pool.lint.missing:
        return Judged(FAIL, pool.lint.missing, REMEDY)
    findings, name = pool.lint.findings, pool.facts.pool
    excused = [found for found in findings if RULE.fullmatch(found.code) and site.accepted.reason(found.code, name)]
    left = [found for found in findings if found not in excused]
    note = f", {len(excused)} accepted with a reason" if excused else ""
    if left:
        told = "; ".join(f"line {found.line} {found.code} {found.text}" for found in left[:5])
        return Judged(FAIL, f"{pool.lint.tool}: {len(left)} findings{note}: {told}",
                      "change the line, or accept the rule with a reason")
    return Judged(PASS, f"{pool.lint.tool}: no finding{note}")


def _non_root(pool: Pool, site: Site) -> Judged:
    facts = pool.facts
    if facts.worker_uid is None:
        return Judged(FAIL, f"no worker was started: {facts.refusal}", "make the pool start")
    workers = f"workers have uid {facts.worker_uid}"
    if facts.worker_uid == 0:
        return Judged(FAIL, f"{workers}, which is root", "do not switch the layer user_namespace off")
    if facts.supervisor_uid == 0 and site.becomes in ("", "root", "0"):
        return Judged(FAIL, f"{workers}, their supervisor runs as root", "run it as an ordinary user, or set service.user")
    return Judged(PASS, f"{workers}, their supervisor {facts.supervisor_uid or site.becomes}")


def _limits(pool: Pool, site: Site) -> Judged:
    facts = pool.facts
    if not facts.measured:
        return Judged(FAIL, f"no worker was started: {facts.refusal}", "make the pool start")
    needed = ["RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_FSIZE", *([] if facts.enforced("cgroup") else ["RLIMIT_AS"])]
    open_ended = [name for name in needed if facts.rlimits.get(name, -1) < 0]
    if open_ended:
        return Judged(FAIL, f"a worker has no {', '.join(open_ended)}", "do not switch the layer rlimits off")
    group = "memory and tasks by its control group" if facts.enforced("cgroup") else "memory by RLIMIT_AS, no control group"
    return Judged(PASS, f"read from a worker: {', '.join(f'{name} {facts.rlimits[name]}' for name in needed)}; {group}")


def _sandboxing(pool: Pool, site: Site) -> Judged:
    facts = pool.facts
    if not facts.measured:
        return Judged(FAIL, f"the pool does not start: {facts.refusal}", "make the pool start")
    off = [name for name, layer in facts.layers.items() if layer.state != "enforced"]
    if not facts.enforced("seccomp") or not any(facts.enforced(wall) for wall in WALLS):
        return Judged(FAIL, f"not in force: {', '.join(off)}", "see the layers' remedies")
    return Judged(PASS, f"{len(facts.layers) - len(off)} of {len(facts.layers)} layers in force on a started worker"
                  + (f"; not {', '.join(off)}" if off else ""))


def _sockets(site: Site) -> Judged:
    if not site.sockets:
        return Judged(NOT_APPLICABLE, "no service socket is configured: a pool's workers are reached by inherited pipes")
    for path, modes in site.sockets.items():
        if modes is None:
            return Judged(FAIL, f"{path} does not exist", "start the service, and look again")
        mode, folder = modes
        if PRIVATE_SOCKETS.get(mode) != folder or (mode == 0o660 and not site.socket_group):
            return Judged(FAIL, f"{path} has mode {mode:04o}, its folder {folder:04o}", "0600 in a folder of 0700")
    told = [f"{path} has mode {modes[0]:04o}, its folder {modes[1]:04o}" for path, modes in site.sockets.items() if modes]
    return Judged(PASS, ", ".join(told))


def _of_code(box: Box, name: str, pool: Pool, site: Site) -> Judged:
    if pool.script is None:
        return Judged(NOT_APPLICABLE, "no worker script is configured")
    return _attested(box, name, pool.script.digest, site)


def _attested(box: Box, pool: str, script: str, site: Site) -> Judged:
    record = attestation.latest(site.records, box.name, pool)
    remedy = f"pyproc doctor --attest {box.name} --by NAME" + (f" --pool {pool}" if pool else "")
    faults = f"; {site.faults[0]}" if site.faults else ""
    if record is None:
        return Judged(FAIL, f"nobody has attested it{faults}", remedy)
    told = f"attested by {record.by} (uid {record.uid}) on {record.at:%Y-%m-%d} until {record.until:%Y-%m-%d}: {record.statement}"
    if record.until <= site.now:
        return Judged(FAIL, f"{told}; this is over", remedy)
    if record.at > site.now:
        return Judged(FAIL, f"{told}; its date lies ahead", remedy)
    if record.script != script:
        return Judged(FAIL, f"{told}; the script has changed since", remedy)
    return Judged(PASS, told)


OF_THE_SITE: dict[str, Callable[[Site], Judged]] = {"socket_permissions": _sockets}
OF_A_POOL: dict[str, Callable[[Pool, Site], Judged]] = {
    "input_validation": _input_validation, "error_messages": _error_messages, "pinned_dependencies": _pinned,
    "static_analysis": _static_analysis, "non_root": _non_root, "resource_limits": _limits, "sandboxing": _sandboxing,
}
