"""The command line as a person or a script meets it: output, JSON documents, exit codes, and no traceback ever."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyproc.cli import main, output
from pyproc.errors import ConfigError

SCRIPT = """
import datetime
from pyproc_worker import PublicError, expose

@expose
def double(req):
    return {"result": req["value"] * 2}

@expose
def echo(req):
    return req

@expose
def boom(req):
    raise RuntimeError("secret text")

@expose
def refuse(req):
    raise PublicError("not \\x1b[31m today")

@expose
def spin(req):
    while True:
        pass

@expose
def day(req):
    return datetime.date(2026, 1, 2)

@expose
def raw(req):
    return {"a": [b"bytes"]}
"""
PYPROC = [sys.executable, "-m", "pyproc"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main.run(argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_call_prints_the_bare_result(cli: Any, script: str) -> None:
    assert cli("call", "--worker", script, "double", '{"value": 42}') == (0, '{"result":84}\n', "")
    code, out, _ = cli("call", "--worker", script, "double", '{"value": 42}', "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "body": {"result": 84}})


def test_dates_are_text_and_bytes_are_refused_with_their_path(cli: Any, script: str) -> None:
    assert cli("call", "--worker", script, "day") == (0, '"2026-01-02"\n', "")
    code, out, _ = cli("call", "--worker", script, "raw", "--json")
    assert code == 65
    assert json.loads(out)["error"]["path"] == "$.a[0]"


@pytest.mark.parametrize(("method", "more", "code", "name"), [
    ("boom", (), 1, "function_failed"),
    ("nobody", (), 66, "not_found"),
    ("spin", ("--timeout", "0.3"), 124, "deadline_exceeded"),
    ("double", ("{bad",), 65, "invalid_argument"),
])
def test_errors_have_their_exit_code_in_both_forms(cli: Any, script: str, method: str, more: tuple[str, ...],
                                                   code: int, name: str) -> None:
    got, out, err = cli("call", "--worker", script, method, *more)
    assert (got, out) == (code, "")
    assert name in err
    got, out, err = cli("call", "--worker", script, method, *more, "--json")
    document = json.loads(out)
    assert (got, err, document["ok"], document["error"]["code"]) == (code, "", False, name)
    assert "secret" not in out


def test_control_characters_are_escaped(cli: Any, script: str) -> None:
    _, _, err = cli("call", "--worker", script, "refuse")
    assert "\x1b" not in err
    assert "today" in err


def test_log_shows_the_cause(script: str) -> None:
    run = subprocess.run([*PYPROC, "call", "--worker", script, "boom", "--log"], capture_output=True, text=True,
                         timeout=30, env=environment(), check=False)
    assert run.returncode == 1
    assert "secret text" in run.stderr


@pytest.mark.parametrize(("argv", "code"), [
    (("serve",), 2),
    (("call",), 2),
    (("call", "m"), 2),
    (("call", "m", "--worker", "/nonexistent.py"), 78),
    (("functions", "--config", "/nonexistent.toml"), 78),
    (("doctor", "--layer", "seccomp"), 78),
    (("doctor", "--layer", "roof=off"), 78),
    (("bench", "--rounds", "0"), 2),
])
def test_wrong_use(cli: Any, argv: tuple[str, ...], code: int) -> None:
    got, out, err = cli(*argv)
    assert (got, out) == (code, "")
    assert err.startswith("pyproc: ")
    got, out, err = cli(*argv, "--json")
    assert (got, err, json.loads(out)["ok"]) == (code, "", False)


def test_timeout_that_is_none(cli: Any, script: str) -> None:
    assert cli("call", "--worker", script, "echo", "--timeout", "soon")[0] == 2


def test_config_that_is_no_toml(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[")
    code, _, err = cli("doctor", "--config", str(tmp_path / "p.toml"))
    assert code == 78
    assert "not TOML" in err


def test_init_works_and_never_overwrites(cli: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert cli("init", str(folder))[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"worker.py", "pyproc.toml", "README.md"}
    code, _, err = cli("init", str(folder))
    assert code == 78
    assert "not overwritten" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    config = str(folder / "pyproc.toml")
    assert cli("call", "--config", config, "predict", '{"value": 2}')[1] == '{"result":4}\n'
    assert "width: number, height: number" in cli("functions", "--config", config)[1]


def test_unknown_key_of_a_pool_is_named(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[pools.a]\nscript = "w.py"\nworkerz = 1\n')
    code, _, err = cli("functions", "--config", str(tmp_path / "p.toml"))
    assert code == 78
    assert "pools.a.workerz" in err


def test_doctor_names_each_layer(cli: Any) -> None:
    code, out, _ = cli("doctor", "--json", "--layer", "cgroup=off")
    document = json.loads(out)
    assert document["layers"]["cgroup"]["state"] == "off"
    assert {layer["state"] for layer in document["layers"].values()} <= {"enforced", "missing", "off"}
    assert code == (0 if document["ok"] else 78)
    assert "seccomp" in cli("doctor")[1]


@pytest.mark.slow
def test_bench(cli: Any) -> None:
    code, out, _ = cli("bench", "--rounds", "1", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["pinned"]["ratio"] > 0
    assert found["free"]["ready_ms"] > 0


def test_unexpected_fault_is_one_line(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("deep")

    monkeypatch.setattr("pyproc.cli.target.sandbox_of", broken)
    code, _, err = cli("doctor")
    assert code == 70
    assert "KeyError" in err
    assert output.exit_code(ConfigError("x")) == 78


def test_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        run = subprocess.run([*PYPROC, "doctor"], stdout=gone, stderr=subprocess.PIPE, timeout=30, env=environment(),
                             check=False)
    assert (run.returncode, run.stderr) == (141, b"")


def test_interrupt_ends_with_130(script: str, tmp_path: Path) -> None:
    child = subprocess.Popen([*PYPROC, "call", "--worker", script, "spin", "-"], stdin=subprocess.PIPE,
                             stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    try:
        assert child.stdin is not None
        child.stdin.write(b"1")
        child.stdin.close()
        child.stdin = None
        # The call is under way once a worker of it burns the processor; a bounded wait is enough to be inside.
        select.select([], [], [], 3.0)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    assert (child.returncode, out) == (130, b"")
    assert b"Traceback" not in err


def test_attack_list_shows_what_would_run(cli: Any) -> None:
    code, out, _ = cli("attack", "--list", "--json")
    listed = json.loads(out)["attacks"]
    assert code == 0 and len({attack["id"] for attack in listed}) == len(listed) >= 150
    code, out, _ = cli("attack", "--list", "--attack", "inheritance")
    assert code == 0 and "8 attacks in 1 classes" in out and "kernel." not in out


def test_attack_proves_each_attack_that_it_stops(cli: Any) -> None:
    code, out, _ = cli("attack", "--attack", "inheritance", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["verdicts"]) == (0, True, {"stopped": 8})
    proven = [attack["answers"]["control"] for attack in found["attacks"] if not attack["proof"].startswith("no control: ")]
    assert len(proven) >= 7 and all(answer.startswith("ESCAPED") for answer in proven)
    assert all({"call", "import"} <= attack["answers"].keys() for attack in found["attacks"])
    assert found["layers"]["seccomp"]["state"] == "enforced" and len(found["filter_sha256"]) == 64


def test_attack_finds_an_open_door(cli: Any) -> None:
    code, out, _ = cli("attack", "--attack", "undo.limit-by-prlimit", "--no-controls", "--layer", "seccomp=off")
    assert code == 1
    assert "seccomp off" in out and "escaped: undo.limit-by-prlimit" in out and out.endswith("does NOT hold\n")


def test_attack_says_what_a_profile_grants(cli: Any) -> None:
    code, out, _ = cli("attack", "--attack", "processes.fork", "--no-controls", "--profile", "default")
    assert code == 0 and "granted: processes.fork" in out and "limits.processes" in out


def test_attack_names_a_wrong_attack_and_the_classes(cli: Any) -> None:
    code, _, err = cli("attack", "--attack", "nonsense")
    assert code == 78 and "'nonsense'" in err and "inheritance" in err
