"""The guide's boxes: each once, and each with what makes it pass, fail and not apply."""

from __future__ import annotations

import datetime
import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pyproc.config.options import LAYERS
from pyproc.doctor import checklist, lint, pins, script
from pyproc.doctor.accepted import Acceptance, Accepted
from pyproc.doctor.attestation import Record
from pyproc.doctor.boxes import ATTESTED, BOXES, GROUPS
from pyproc.doctor.checklist import Pool, Site
from pyproc.doctor.facts import Facts
from pyproc.doctor.lint import Verdict
from pyproc.doctor.pins import Pins
from pyproc.sandbox.plan import LayerState

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
SITE = Site(NOW, MappingProxyType({}), socket_group=False, becomes="", records=(), faults=(), accepted=Acceptance((), ()))
FACTS = Facts(
    pool="a", measured=True, refusal="", layers={name: LayerState("enforced", "prefer") for name in LAYERS}, profile="strict",
    allowed=frozenset(), supervisor_uid=1000, worker_uid=61184, secret_variables={}, places=(), scratch=0, isolation="call", workers=1,
    memory=1, machine_memory=2, cpus=1.0, processes=1, timeout=30.0,
    rlimits={"RLIMIT_CPU": 61, "RLIMIT_NOFILE": 128, "RLIMIT_FSIZE": 1 << 26, "RLIMIT_AS": -1})
SCRIPT = script.read("import numpy\nfrom pyproc_worker import expose\n")
POOL = Pool(FACTS, SCRIPT, {"health": {}, "f": {"input": {"type": "integer"}}}, Verdict((), "bandit's rules, by ruff", ""),
            Pins("/srv/requirements.txt", ()), ("Processing failed", "a secret"))
NOT_STARTED = replace(FACTS, measured=False, worker_uid=None, refusal="it does not start", rlimits={})
NO_SCRIPT = replace(POOL, script=None, functions=None, lint=None, pins=None)
HASH = "--hash=sha256:" + "0" * 64


def state(name: str, pool: Pool = POOL, site: Site = SITE) -> tuple[str, str]:
    """State and evidence of a box for one pool."""
    found = next(each for each in checklist.judge({"a": pool}, site) if each.name == name)
    return found.state, " ".join(found.evidence)


def facts(**changes: Any) -> Pool:
    return replace(POOL, facts=replace(FACTS, **changes))


def missing(*layers: str) -> Pool:
    return facts(layers={name: LayerState("off" if name in layers else "enforced", "prefer") for name in LAYERS})


def test_every_box_of_the_guide_is_there_once() -> None:
    assert [box.title for box in BOXES] == [
        "Input validation in all exposed functions", "Error messages don't leak sensitive info", "Dependencies are pinned and verified",
        "Code reviewed for security issues", "Static analysis tools run (bandit, gosec)", "Running as non-root user",
        "Socket permissions set to 0600", "Resource limits configured", "Sandboxing enabled (containers/seccomp)",
        "Monitoring and alerting configured", "Regular dependency updates", "Security patches applied promptly", "Audit logs reviewed",
        "Incident response plan tested", "Backup and recovery procedures"]
    assert Counter(box.group for box in BOXES) == dict.fromkeys(GROUPS, 5)
    assert [found.title for found in checklist.judge({"a": POOL, "b": NO_SCRIPT}, SITE)] == [box.title for box in BOXES]


def test_every_finding_has_evidence_and_a_time_and_every_failure_a_remedy() -> None:
    for pool in (POOL, NO_SCRIPT, replace(POOL, facts=NOT_STARTED, functions=None, told=("", ""))):
        for found in checklist.judge({"a": pool}, SITE):
            assert found.state in ("pass", "fail", "not applicable") and all(found.evidence)
            assert found.as_of == "2026-06-01T12:00:00Z" and bool(found.remedy) is (found.state == "fail")


@pytest.mark.parametrize(("name", "pool", "told"), [
    ("input_validation", replace(POOL, functions={"f": {"input": {}}, "g": {"input": {"type": "x"}}}), "1 of 2 functions take any"),
    ("input_validation", replace(POOL, facts=NOT_STARTED, functions=None), "it does not start"),
    ("error_messages", replace(POOL, told=("oh: a secret", "a secret")), "saw 'oh: a secret'"),
    ("error_messages", replace(POOL, told=("", "")), "no function could be called"),
    ("error_messages", replace(POOL, script=script.read("@expose(public_errors=(Exception,))\ndef f(): ...")), "in line 1"),
    ("pinned_dependencies", replace(POOL, pins=Pins("", ("numpy has no hash",))), "numpy has no hash"),
    ("pinned_dependencies", replace(POOL, script=script.read("def")), "cannot be parsed"),
    ("static_analysis", replace(POOL, lint=Verdict((lint.Finding("S102", 5, "exec"),), "ruff", "")), "line 5 S102 exec"),
    ("static_analysis", replace(POOL, lint=Verdict((), "", "ruff is not installed")), "not installed"),
    ("static_analysis", replace(POOL, lint=None, facts=NOT_STARTED), "cannot be read"),
    ("non_root", facts(supervisor_uid=0), "supervisor runs as root"),
    ("non_root", facts(worker_uid=0), "which is root"),
    ("non_root", replace(POOL, facts=NOT_STARTED), "no worker was started"),
    ("resource_limits", facts(rlimits={**FACTS.rlimits, "RLIMIT_CPU": -1}), "no RLIMIT_CPU"),
    ("resource_limits", missing("cgroup"), "no RLIMIT_AS"),
    ("resource_limits", replace(POOL, facts=NOT_STARTED), "no worker was started"),
    ("sandboxing", missing("seccomp"), "not in force: seccomp"),
    ("sandboxing", missing("mount_namespace", "landlock"), "not in force: mount_namespace, landlock"),
    ("sandboxing", replace(POOL, facts=NOT_STARTED), "does not start"),
])
def test_a_box_that_fails(name: str, pool: Pool, told: str) -> None:
    found, evidence = state(name, pool)
    assert found == "fail" and told in evidence


@pytest.mark.parametrize(("name", "pool", "site"), [
    ("input_validation", POOL, SITE), ("error_messages", POOL, SITE), ("pinned_dependencies", POOL, SITE),
    ("static_analysis", POOL, SITE), ("non_root", POOL, SITE), ("resource_limits", POOL, SITE), ("sandboxing", POOL, SITE),
    ("sandboxing", missing("landlock", "uts_namespace"), SITE),
    ("non_root", facts(supervisor_uid=0), replace(SITE, becomes="pyproc")),
    ("resource_limits", replace(POOL, facts=replace(missing("cgroup").facts, rlimits={**FACTS.rlimits, "RLIMIT_AS": 1 << 30})), SITE),
    ("socket_permissions", POOL, replace(SITE, sockets={"/run/p/s": (0o600, 0o700)})),
    ("socket_permissions", POOL, replace(SITE, sockets={"/run/p/s": (0o660, 0o710)}, socket_group=True)),
])
def test_a_box_that_passes(name: str, pool: Pool, site: Site) -> None:
    assert state(name, pool, site)[0] == "pass"


@pytest.mark.parametrize("name", ["input_validation", "pinned_dependencies", "static_analysis", "code_review"])
def test_a_box_about_a_script_does_not_apply_without_one(name: str) -> None:
    assert state(name, NO_SCRIPT)[0] == "not applicable"


def test_pins_do_not_apply_to_the_standard_library() -> None:
    plain = script.read("import json, os.path\nfrom pyproc_worker import expose")
    assert state("pinned_dependencies", replace(POOL, script=plain))[0] == "not applicable"


@pytest.mark.parametrize(("modes", "group"), [(None, False), ((0o666, 0o700), False), ((0o600, 0o755), False), ((0o660, 0o710), False)])
def test_a_socket_that_is_open_or_not_there(modes: tuple[int, int] | None, group: bool) -> None:
    assert state("socket_permissions", POOL, replace(SITE, sockets={"/run/p/s": modes}, socket_group=group))[0] == "fail"
    assert state("socket_permissions")[0] == "not applicable"


def test_a_box_fails_when_it_does_for_one_of_several_pools() -> None:
    found = {each.name: each for each in checklist.judge({"a": POOL, "b": facts(worker_uid=0), "c": NO_SCRIPT}, SITE)}
    assert found["non_root"].state == "fail" and [line[:2] for line in found["non_root"].evidence] == ["a:", "b:", "c:"]
    assert found["input_validation"].state == "pass"


def test_an_accepted_rule_is_no_finding_and_an_accepted_box_still_fails() -> None:
    pool = replace(POOL, lint=Verdict((lint.Finding("S102", 5, "exec"),), "ruff", ""))
    entry = Accepted("S102", "", "a calculator", None)
    found, told = state("static_analysis", pool, replace(SITE, accepted=Acceptance((entry,), ())))
    assert (found, told) == ("pass", "a: ruff: no finding, 1 accepted with a reason")
    assert state("static_analysis", pool, replace(SITE, accepted=Acceptance((entry._replace(pool="b"),), ())))[0] == "fail"
    box = replace(SITE, accepted=Acceptance((Accepted("backup", "", "a test machine", None),), ()))
    kept = next(each for each in checklist.judge({"a": POOL}, box) if each.name == "backup")
    assert (kept.state, kept.accepted) == ("fail", "a test machine")


def test_a_review_is_of_the_code_that_was_reviewed() -> None:
    day = datetime.timedelta(days=1)
    review = Record("code_review", "a", "Ada", 1000, NOW - day, NOW + day, "read", SCRIPT.digest)
    site = replace(SITE, records=(review,))
    assert state("code_review", POOL, site)[0] == "pass"
    changed = state("code_review", replace(POOL, script=SCRIPT._replace(digest="0" * 64)), site)
    assert changed[0] == "fail" and "the script has changed since" in changed[1]
    found = next(each for each in checklist.judge({"a": POOL}, site) if each.name == "code_review")
    assert found.as_of == "2026-05-31T12:00:00Z"
    assert [name for name in ATTESTED if state(name)[0] != "fail"] == []


@pytest.mark.parametrize(("source", "told"), [
    ("import numpy.linalg, os\nfrom sklearn import svm\nfrom . import x\nfrom __future__ import annotations", {"numpy", "sklearn"}),
    ("def f():\n    import pandas\n", {"pandas"}),
])
def test_imports_of_a_script(source: str, told: set[str]) -> None:
    assert script.read(source).imports == told


@pytest.mark.parametrize("source", ["def", "\x00", "x" + "(" * 5000, "(" * 300 + ")" * 300])
def test_a_hostile_text_is_a_finding(source: str) -> None:
    assert script.read(source).unread


def test_what_a_script_publishes() -> None:
    found = script.read("@expose(public_errors=(ValueError, builtins.Exception))\ndef f():\n    raise PublicError('x')\n")
    assert (found.broad, found.public) == ((1,), (3,))
    assert script.read("@expose(public_errors=(ValueError,))\ndef f(): ...").broad == ()


@pytest.mark.parametrize(("name", "text", "fault"), [
    ("requirements.txt", f"absent-package==1.0 \\\n    {HASH}\n# a comment\n", ""),
    ("requirements.txt", "absent-package==1.0\n", "absent-package has no hash"),
    ("requirements.txt", "absent-package>=1.0\n", "has no exact version"),
    ("requirements.txt", f"absent-package==1.* {HASH}\n", "has no exact version"),
    ("requirements.txt", "-r other.txt\n", "leads elsewhere"),
    ("requirements.txt", f'absent-package[x]==1.0 ; python_version > "3" {HASH}\n', ""),
    ("requirements.txt", f"click==0.0.1 {HASH}\n", "pinned is 0.0.1"),
    ("uv.lock", '[[package]]\nname = "absent-package"\nhash = "sha256:0"\n', ""),
    ("uv.lock", '[[package]]\nname = "absent-package"\n', "holds no hashes"),
])
def test_pins(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    found = pins.look((tmp_path / "none", tmp_path), (), installed=True)
    assert found.file == str(tmp_path / name)
    assert (fault in found.faults[0]) if fault else found.faults == ()


def test_an_import_that_is_not_pinned(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("")
    assert pins.look((tmp_path,), {"click"}, installed=True).faults == ("click is imported and not pinned",)
    assert pins.look((tmp_path,), {"click"}, installed=False).faults == ()
    assert "beside the script" in pins.look((), (), installed=True).faults[0]


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="needs ruff (requirements/test.txt)")
@pytest.mark.parametrize(("source", "codes"), [
    ("exec('x')  # noqa: S102\n", ["S102"]), ("import pickle\npickle.loads(b'')\n", ["S301", "S403"]), ("assert 1\n", []),
    ("import subprocess\nsubprocess.run('x', shell=True)\n", ["S404", "S602", "S607"]), ("def f(x: int) -> int:\n    return x\n", []),
])
def test_bandit_s_rules_are_looked_for_without_running_the_script(source: str, codes: list[str]) -> None:
    verdict = lint.check(source)
    assert not verdict.missing and set(codes) >= {found.code for found in verdict.findings} and bool(codes) is bool(verdict.findings)


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="needs ruff (requirements/test.txt)")
def test_a_text_that_is_no_python_is_a_finding() -> None:
    assert lint.check("def").findings


def test_without_the_tool_the_box_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "not installed" in lint.check("x").missing and "pyproc-supervisor[doctor]" in lint.REMEDY
