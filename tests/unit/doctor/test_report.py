"""The report as text: the same words for a terminal and for a pipe, held against two files; and as a document.

After a wanted change: `PYPROC_WRITE_GOLDEN=1 python -m pytest tests/unit/doctor/test_report.py`, and read the difference.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from pyproc.cli import output
from pyproc.config.options import LAYERS
from pyproc.doctor import checklist, exposure, remedies, report, script
from pyproc.doctor.accepted import Acceptance, Accepted
from pyproc.doctor.attestation import Record
from pyproc.doctor.facts import Facts
from pyproc.doctor.lint import Verdict
from pyproc.sandbox.plan import LayerState
from pyproc.sandbox.probe import NEEDS

GOLDEN = Path(__file__).with_name("golden")
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
LAYER_STATES = {name: LayerState("enforced", "prefer") for name in LAYERS} | {
    "cgroup": LayerState("missing", "prefer", "controller memory: Read-only file system"), "uts_namespace": LayerState("off", "off")}


def example() -> report.Report:
    """Two pools with something of everything, and a name that a terminal would obey."""
    facts = Facts(
        pool="one", measured=True, refusal="", layers=LAYER_STATES, profile="strict", allowed=frozenset({"read", "socket"}),
        supervisor_uid=1000, worker_uid=1000, secret_variables={"TOKEN\x1b[31m": "its name"}, places=(), scratch=0, isolation="worker",
        workers=1, memory=1, machine_memory=2, cpus=None, processes=1, timeout=30.0,
        rlimits={"RLIMIT_CPU": 61, "RLIMIT_NOFILE": 128, "RLIMIT_FSIZE": 64, "RLIMIT_AS": 1 << 30})
    refused = replace(facts, pool="two", measured=False, refusal="layer seccomp is required and missing: EBUSY", worker_uid=None,
                      secret_variables={}, layers={**LAYER_STATES, "seccomp": LayerState("missing", "require", "EBUSY")})
    told = script.read("import json\n")
    acceptance = Acceptance((Accepted("cpus", "", "one pool on its own machine", None), Accepted("backup", "", "a test machine", None)),
                            (Accepted("mdwe", "", "an old JIT", datetime.date(2026, 5, 1)),))
    evidence = {
        "one": checklist.Pool(facts, told, {"f": {"input": {"type": "integer"}}}, Verdict((), "bandit's rules, by ruff", ""), None,
                              ("Processing failed", "a secret")),
        "two": checklist.Pool(refused, told, None, Verdict((), "", "ruff is not installed"), None, ("", ""))}
    site = checklist.Site(NOW, MappingProxyType({}), socket_group=False, becomes="", faults=(), accepted=acceptance,
                          records=(Record("monitoring", "", "Ada", 1000, NOW - DAY, NOW + DAY, "an alert was seen", ""),))
    pools = {name: report.Pool(each.facts, rows := exposure.assess(each.facts), {
        row.name: why for row in rows if row.points and (why := acceptance.reason(row.name, name))}) for name, each in evidence.items()}
    helps = {name: remedies.remedy(name, general, 1000, {}) for name, (_, general) in NEEDS.items()}
    return report.Report(time="2026-06-01T12:00:00Z", kernel="6.8.0", uid=1000, landlock_abi=4, pools=pools, acceptance=acceptance,
                         needs={name: needs for name, (needs, _) in NEEDS.items()}, remedies=helps, limit=2.0,
                         checklist=checklist.judge(evidence, site))


@pytest.mark.parametrize(("name", "colour"), [("pipe.txt", False), ("terminal.txt", True)])
def test_text_is_as_written(name: str, colour: bool) -> None:
    text = report.text(example(), output.table, partial(output.paint, colour=colour)) + "\n"
    if os.environ.get("PYPROC_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text, "utf-8")
    assert text == (GOLDEN / name).read_text("utf-8")


def test_colour_says_nothing_that_words_do_not_say() -> None:
    plain, coloured = ((GOLDEN / name).read_text("utf-8") for name in ("pipe.txt", "terminal.txt"))
    assert "\x1b" not in plain and re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_document_has_every_line_and_box() -> None:
    found = json.loads(output.encode(report.document(example())))
    assert (found["ok"], found["refusal"], found["above"]) == (False, "layer seccomp is required and missing: EBUSY", ["two"])
    for name, pool in found["pools"].items():
        assert [line["name"] for line in pool["lines"]] == [line.name for line in exposure.LINES]
        assert pool["exposure"] == round(sum(line["points"] for line in pool["lines"]), 2)
        assert pool["measured"] == ("pool" if name == "one" else "plan")
    assert len(found["checklist"]) == 15 and found["expired"] == [{"check": "mdwe", "pool": "", "until": "2026-05-01"}]
    assert found["layers"]["cgroup"]["remedy"].startswith("as a user: systemd-run --user")


def test_what_is_accepted_does_not_count_for_fail_above() -> None:
    pool = example().pools["one"]
    assert pool.accepted == 0.1
    assert pool.above(round(pool.exposure - 0.1, 2) - 0.01) and not pool.above(round(pool.exposure - 0.1, 2))


@pytest.mark.parametrize(("layer", "uid", "switches", "told"), [
    ("cgroup", 1000, {}, "systemd-run --user --pty -p Delegate=yes -p DelegateSubgroup=pyproc-supervisor COMMAND"),
    ("cgroup", 1000, {}, "systemd-run --user --scope -p Delegate=yes sh -c"),
    ("cgroup", 0, {}, "systemd-run --pty -p Delegate=yes -p DelegateSubgroup=pyproc-supervisor COMMAND"),
    ("cgroup", 0, {}, "systemd-run --scope -p Delegate=yes sh -c"),
    ("cgroup", 0, {}, "[Service] Delegate=memory pids cpu"),
    ("user_namespace", 1000, {"user.max_user_namespaces": "0"}, "as root: sysctl -w user.max_user_namespaces=15000"),
    ("mount_namespace", 1000, {"kernel.unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user_namespace", 1000, {"kernel.apparmor_restrict_unprivileged_userns": "1"}, "userns,"),
    ("user_namespace", 0, {"kernel.unprivileged_userns_clone": "0"}, "in a container:"),
    ("landlock", 0, {"lsm": "capability,apparmor"}, "boot with lsm=landlock,capability,apparmor"),
    ("landlock", 0, {"lsm": "landlock,apparmor"}, "add landlock to lsm="),
    ("seccomp", 0, {}, "run outside a container"),
])
def test_remedy_fits_the_machine(layer: str, uid: int, switches: dict[str, str], told: str) -> None:
    assert told in remedies.remedy(layer, NEEDS[layer][1], uid, switches)
