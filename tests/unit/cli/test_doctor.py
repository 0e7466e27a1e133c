"""`pyproc doctor` as a person or a script meets it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pyproc.cli import output
from pyproc.doctor.boxes import ATTESTED
from pyproc.doctor.exposure import LINES

CONFIG = """
[pools.one]
script = "worker.py"
isolation = "call"
[pools.two]
script = "worker.py"
env = { API_TOKEN = "hunter2" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "worker.py").write_text("from pyproc_worker import expose\n@expose\ndef f(x: int) -> int:\n    return x\n"
                                        "@expose\ndef plain(req):\n    exec(req)\n")
    path = tmp_path / "pyproc.toml"
    path.write_text(CONFIG)
    return path


def boxes(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in document["checklist"]}


@pytest.mark.unprivileged
def test_all_pools_are_reported_and_one_where_one_is_meant(cli: Any, config: Path) -> None:
    code, out, _ = cli("doctor", "--json", "--config", str(config))
    found = json.loads(out)
    assert (code, found["ok"], list(found["pools"])) == (0, True, ["one", "two"])
    assert found["pools"]["two"]["exposure"] == round(found["pools"]["one"]["exposure"] + 0.2 + 0.2, 2)  # isolation, the variable
    assert [line["name"] for line in found["pools"]["one"]["lines"]] == [line.name for line in LINES]
    assert found["pools"]["one"]["measured"] == "pool" and "hunter2" not in out
    assert "1 of 2 functions take any body: plain" in boxes(found)["input_validation"]["evidence"][0]
    found = json.loads(cli("doctor", "--json", "--config", str(config), "--pool", "two")[1])
    assert list(found["pools"]) == ["two"]


def test_evidence_is_of_this_run(cli: Any, config: Path) -> None:
    found = json.loads(cli("doctor", "--json", "--config", str(config), "--pool", "one")[1])
    assert {box["as_of"] for box in found["checklist"]} == {found["time"]}


@pytest.mark.unprivileged
def test_fail_above_is_an_exit_code(cli: Any, config: Path) -> None:
    exposed = json.loads(cli("doctor", "--json", "--config", str(config), "--pool", "two")[1])["pools"]["two"]["exposure"]
    argv = ("doctor", "--config", str(config), "--pool", "two", "--fail-above")
    assert cli(*argv, str(exposed))[0] == 0
    code, out, _ = cli(*argv, str(exposed - 0.01))
    assert code == 1 and f"pool two is above --fail-above {exposed - 0.01:g}" in out
    code, out, _ = cli(*argv, "0", "--json")
    assert (code, json.loads(out)["ok"], json.loads(out)["above"]) == (1, False, ["two"])
    assert cli(*argv, "11")[0] == 2


def test_what_is_accepted_with_a_reason_passes(cli: Any, config: Path) -> None:
    argv = ("doctor", "--json", "--config", str(config), "--pool", "two")
    before = json.loads(cli(*argv)[1])["pools"]["two"]
    costing = [line["name"] for line in before["lines"] if line["points"]]
    entries = ", ".join(f'{{ check = "{name}", reason = "known" }}' for name in costing)
    config.write_text(f"{CONFIG}\n[doctor]\nsuppress = [{entries}]\n")
    code, out, _ = cli(*argv, "--fail-above", "0")
    after = json.loads(out)["pools"]["two"]
    assert code == 0 and after["exposure"] == after["accepted"] == before["exposure"]
    config.write_text(f'{CONFIG}\n[doctor]\nsuppress = [{{ check = "isolation", reason = "r", until = 2020-01-01 }}]\n')
    code, out, _ = cli(*argv, "--fail-above", "0")
    assert code == 1 and json.loads(out)["expired"] == [{"check": "isolation", "pool": "", "until": "2020-01-01"}]
    config.write_text(f'{CONFIG}\n[doctor]\nsuppress = [{{ check = "isolation", reason = "" }}]\n')
    code, _, err = cli("doctor", "--config", str(config))
    assert code == 78 and f"config '{config}': doctor.suppress[0].reason is ''; write why" in err


def test_a_pool_that_refuses_to_start_is_78_and_the_others_are_told(cli: Any, config: Path) -> None:
    config.write_text(CONFIG.replace('script = "worker.py"\nisolation', 'script = "absent.py"\nisolation'))
    code, out, _ = cli("doctor", "--json", "--config", str(config))
    found = json.loads(out)
    assert (code, found["ok"]) == (78, False) and "absent.py" in found["refusal"]
    assert (found["pools"]["one"]["measured"], found["pools"]["two"]["measured"]) == ("plan", "pool")
    code, out, _ = cli("doctor", "--config", str(config))
    assert code == 78 and "a pool would refuse to start: script" in out


def test_flags_reach_what_is_measured(cli: Any, config: Path) -> None:
    argv = ("doctor", "--json", "--worker", str(config.with_name("worker.py")))
    plain = json.loads(cli(*argv)[1])["pools"]["pool"]
    found = json.loads(cli(*argv, "--layer", "mdwe=off", "--profile", "default")[1])["pools"]["pool"]
    assert found["layers"]["mdwe"]["state"] == "off" and found["profile"] == "default"
    assert found["exposure"] > plain["exposure"]


@pytest.mark.unprivileged
def test_without_a_configuration_the_defaults_are_measured(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(cli("doctor", "--json")[1])
    assert list(found["pools"]) == ["defaults"] and found["pools"]["defaults"]["measured"] == "pool"
    assert boxes(found)["input_validation"]["state"] == "not applicable"
    assert boxes(found)["error_messages"]["state"] == "pass"
    assert cli("doctor", "--attest", "backup", "--by", "Ada")[0] == 2


@pytest.mark.unprivileged
def test_attested_boxes_pass_and_a_review_ends_with_the_code(cli: Any, config: Path) -> None:
    argv = ("doctor", "--config", str(config), "--pool", "one")
    for box in ATTESTED:
        code, out, _ = cli(*argv, "--attest", box, "--by", "Ada", "--statement", "seen", "--json")
        assert code == 0 and json.loads(out)["uid"] == os.getuid()
    found = boxes(json.loads(cli(*argv, "--json")[1]))
    assert {found[box]["state"] for box in ATTESTED} == {"pass"}
    assert "attested by Ada" in found["backup"]["evidence"][0]
    with config.with_name("worker.py").open("a") as file:
        file.write("# one more line\n")
    found = boxes(json.loads(cli(*argv, "--json")[1]))
    assert (found["code_review"]["state"], found["backup"]["state"]) == ("fail", "pass")


@pytest.mark.parametrize(("argv", "code", "told"), [
    (("--attest", "sandboxing", "--by", "Ada"), 2, "sandboxing"),
    (("--attest", "backup"), 2, "--by NAME"),
    (("--attest", "backup", "--by", " "), 2, "--by NAME"),
    (("--attest", "backup", "--by", "A\nB"), 2, "write one line"),
    (("--attest", "backup", "--by", "A", "--expires", "soon"), 2, "--expires is 'soon'"),
    (("--attest", "backup", "--by", "A", "--expires", "401 d"), 2, "the longest is 400 d"),
    (("--by", "Ada"), 2, "belong to --attest"),
    (("--attest", "code_review", "--by", "Ada"), 78, "choose one by --pool NAME"),
])
def test_attesting_wrongly(cli: Any, config: Path, argv: tuple[str, ...], code: int, told: str) -> None:
    found, _, err = cli("doctor", "--config", str(config), *argv)
    assert found == code and told in err
    assert not config.with_name("attestations").exists()


def test_a_socket_that_no_path_can_name_is_not_there(cli: Any, config: Path) -> None:
    config.write_text(config.read_text() + '[service]\nsocket = "/x\\u0000y"\n')
    assert cli("doctor", "--config", str(config), "--pool", "one")[0] == 0


def test_a_review_of_a_script_that_is_not_there_is_refused(cli: Any, config: Path) -> None:
    config.with_name("worker.py").unlink()
    code, _, err = cli("doctor", "--config", str(config), "--pool", "one", "--attest", "code_review", "--by", "Ada")
    assert code == 78 and "worker.py' cannot be read" in err


@pytest.mark.parametrize(("terminal", "variables", "coloured"), [
    (True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"NO_COLOR": ""}, True),
    (True, {"TERM": "dumb"}, False),
])
def test_colour_is_for_terminals_and_not_against_no_color(
        monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict[str, str], coloured: bool) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert output.coloured() is coloured
    assert ("\x1b[" in output.paint("x", "red", colour=output.coloured())) is coloured
    assert output.paint("\x1b[31m", "plain", colour=True) == "\\x1b[31m"
