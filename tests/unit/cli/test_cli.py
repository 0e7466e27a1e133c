"""The command line as a person or a script meets it: output, JSON documents, exit codes, and no traceback ever."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pyproc.cli import output, program
from pyproc.cli.pingpong import PingPong
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
def die(req):
    import os
    os._exit(3)

@expose
def raw(req):
    return {"a": [b"bytes"]}

@expose
def turned():
    return {"\u202e": "a\u202eb\x7f\U000e0001 \xe9"}
"""
PYPROC = [sys.executable, "-m", "pyproc"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    return str(path)


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


def test_result_on_a_terminal_has_its_control_characters_escaped_as_json_does(
        cli: Any, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = cli("call", "--worker", script, "turned")[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = cli("call", "--worker", script, "turned")[1]
    assert bare == '{"\u202e":"a\u202eb\x7f\U000e0001 é"}\n'
    assert shown == r'{"\u202e":"a\u202eb\u007f\udb40\udc01 é"}' + "\n"
    assert json.loads(shown) == json.loads(bare)


@pytest.mark.parametrize(("method", "hint"), [
    ("boom", True),  # its traceback is in the log
    ("refuse", False),  # the error's text is all there is
    ("die", True),  # the kernel's evidence
])
def test_hint_to_the_log_is_true(cli: Any, script: str, method: str, hint: bool) -> None:
    _, _, err = cli("call", "--worker", script, method)
    assert ("--log shows the cause" in err) is hint
    assert "error id" in err


def test_log_shows_the_cause(script: str) -> None:
    run = subprocess.run([*PYPROC, "call", "--worker", script, "boom", "--log"], capture_output=True, text=True,
                         timeout=30, env=environment(), check=False)
    assert run.returncode == 1
    assert "secret text" in run.stderr and "--log" not in run.stderr


@pytest.mark.parametrize(("argv", "code"), [
    (("serve",), 2),
    (("call",), 2),
    (("call", "m"), 2),
    (("call", "m", "--worker", "/nonexistent.py"), 78),
    (("functions", "--config", "/nonexistent.toml"), 78),
    (("doctor", "--layer", "seccomp"), 2),
    (("doctor", "--layer", "roof=off"), 2),
    (("call", "m", "--worker", "w.py", "--layer", "seccomp=maybe"), 2),
    (("bench", "--rounds", "0"), 2),
])
def test_wrong_use(cli: Any, argv: tuple[str, ...], code: int) -> None:
    got, out, err = cli(*argv)
    assert (got, out) == (code, "")
    assert err.startswith("pyproc: ")
    got, out, err = cli(*argv, "--json")
    assert (got, err, json.loads(out)["ok"]) == (code, "", False)


def test_timeout_that_is_none(cli: Any, script: str) -> None:
    assert cli("call", "--worker", script, "echo", "--timeout", "nan") == (
        2, "", 'pyproc: usage: --timeout is nan; write a number or a text such as "30 s". '
               "`pyproc call --help` shows what is possible\n")


@pytest.mark.parametrize(("argv", "where"), [
    (("call", "--worker"), "pyproc call --help"),
    (("call", "m", "--workr", "w.py"), "pyproc call --help"),
    (("doctor", "--layer", "seccomp"), "pyproc doctor --help"),
    (("nonsense",), "pyproc --help"),
])
def test_wrong_use_names_the_help_that_fits(cli: Any, argv: tuple[str, ...], where: str) -> None:
    assert f"`{where}` shows" in cli(*argv)[2]


def test_wrong_body_is_quoted_up_to_40_characters(cli: Any, script: str) -> None:
    assert "body '{bad' is not JSON: JSON is malformed: object keys" in cli("call", "--worker", script, "echo", "{bad")[2]
    assert f"body '{'é' * 40}' is" in cli("call", "--worker", script, "echo", "é" * 40)[2]
    assert f"body '{'é' * 40}'… is" in cli("call", "--worker", script, "echo", "é" * 41)[2]


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
    assert "has worker.py, pyproc.toml, README.md already, not overwritten" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    config = str(folder / "pyproc.toml")
    assert cli("call", "--config", config, "predict", '{"value": 2}')[1] == '{"result":4}\n'
    assert "width: number, height: number" in cli("functions", "--config", config)[1]


def test_init_that_fails_leaves_nothing_in_the_way(cli: Any, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len("half of worker.py"), before[1]))
    try:
        code, _, err = cli("init", str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, list(tmp_path.iterdir())) == (78, [])
    assert "cannot be made: File too large" in err
    assert cli("init", str(tmp_path))[0] == 0


@pytest.mark.parametrize(("text", "told"), [
    ("pools = 3", "pools is 3; write tables, [pools.NAME]"),
    ("pools.a = 3", "pools.a is 3; write a table, [pools.a]"),
    ("[pool.a]", "table pool is unknown; possible are service, pools,"),
    ("[audit]", "it has 0 pools; choose the script by --worker FILE"),
    ("[pools.a]", 'pools.a.script is missing; write script = "worker.py"'),
    ("pools.a = { script = 3 }", 'pools.a.script is 3; write script = "worker.py"'),
    ('pools.a = { script = "worker.py", workerz = 1 }', "pools.a.workerz is unknown; possible are script, workers,"),
    ('pools.a = { script = "worker.py", workers = "x" }', "workers is 'x'; write a whole number from 1 to"),
    ('pools.a = { script = "worker.py", env = 3 }', "env"),
    ('pools.a = { script = "worker.py", limits = { memry = 1 } }', "pools.a.limits.memry is unknown; possible are memory,"),
    ('pools.a = { script = "worker.py", limits = { cpus = "x" } }', "limits"),
    ('pools.a = { script = "worker.py", limits = 3 }', "pools.a.limits is 3; write a table, [pools.a.limits]"),
    ('pools.a = { script = "worker.py", sandbox = { layers = 3 } }', "sandbox"),
    ('pools.a = { script = "worker.py", sandbox = { layer = {} } }', "pools.a.sandbox.layer is unknown; possible are profile,"),
])
def test_mistake_in_the_configuration_is_named_with_the_file(cli: Any, script: str, text: str, told: str) -> None:
    config = Path(script).with_name("p.toml")
    config.write_text(text)
    code, _, err = cli("call", "echo", "--config", str(config))
    assert (code, err[:len(f"pyproc: config: config '{config}': ")]) == (78, f"pyproc: config: config '{config}': ")
    assert told in err


@pytest.mark.parametrize(("text", "told"), [
    ('sandbox = { read = ["/nowhere"] }', "sandbox.read names '/nowhere', which does not exist; remove it or create it"),
    ('python = "/bin/false"', "python is '/bin/false', which does not run Python: it ended with status 1; give the path"),
    ('isolation = "tenant"', "isolation is 'tenant'; tenants exist in the service only"),
    ('sandbox = { profile = "/nowhere.json" }', "sandbox profile"),
])
def test_what_is_found_at_the_start_is_named_with_file_and_key(cli: Any, script: str, text: str, told: str) -> None:
    config = Path(script).with_name("p.toml")
    config.write_text(f'[pools.a]\nscript = "{script}"\n{text}\n')
    code, _, err = cli("call", "echo", "--config", str(config))
    assert (code, err.partition(told)[0]) == (78, f"pyproc: config: config '{config}': pools.a.")


def test_a_pool_of_the_configuration_can_do_without_a_zygote(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    config = tmp_path / "pyproc.toml"
    config.write_text('[pools.a]\nscript = "worker.py"\nzygote = false\n')
    assert cli("call", "health", "--config", str(config))[0] == 0


@pytest.mark.parametrize(("argv", "code", "told"), [
    (["call", "echo", "--socket", "x"], 2, "No such option: --socket. `pyproc call --help`"),
    (["call", "echo", "--workr", "x"], 2, "No such option: --workr. Did you mean '--worker'? `pyproc call --help`"),
    (["--jason", "call"], 2, "No such option before the verb: --jason. Write it behind: pyproc VERB --jason. `pyproc --help`"),
    (["call", "a", "b", "c"], 2, "Got unexpected extra argument (c). `pyproc call --help`"),
    (["doctor", "--fail-above", "x"], 2, "'x' is not a valid number from 0 to 10. `pyproc doctor"),
    (["bench", "--rounds", "x"], 2, "'x' is not a valid whole number from 1 to 1000. `pyproc bench"),
    (["policy", "export"], 2, "Missing option '--format'. Choose from: oci, apparmor, selinux, systemd, kubernetes, docker, text. "
     "`pyproc policy export --help`"),
    (["policy", "explain", "open"], 2, "act 'open' lacks what it is done to; write open PATH [--write]. `pyproc policy explain"),
    (["policy", "explain", "connect"], 2, "act 'connect' lacks what it is done to; write connect HOST:PORT or connect PATH."),
    (["policy", "learn", "nofile.jsonl"], 78, "calls 'nofile.jsonl' cannot be read: there is no such file; name a file of calls"),
    (["policy", "learn", "--worker", "{script}", "--", "echo", "{{bad"], 65, "'{bad' is neither JSON nor a function's name"),
    (["policy", "learn", "--worker", "{script}", "--", "eco"], 66, "no function 'eco' is exposed; did you mean 'echo'?"),
    (["policy", "learn", "--worker", "{script}", "--", "eco"], 66, "; nor is there a file 'eco'"),
    (["policy", "learn", "--worker", "{broken}", "--", "echo"], 78, "ZeroDivisionError: division by zero (line 1)"),
    (["call", "--worker", "{script}", "eco"], 66, "no function 'eco' is exposed; did you mean 'echo'? exposed are "),
    (["call", "--worker", "{empty}", "x"], 66, "exposed are health; the script exposes nothing of its own, write @expose"),
    (["functions", "--worker", "{empty}"], 0, "the script exposes nothing of its own, write @expose above a function"),
    (["call", "--worker", "{script}", "echo", '{{"value":18446744073709551616}}'], 65, "cannot be sent: value holds an integer"),
    (["call", "--worker", "{script}", "echo", "1e999"], 65, "body '1e999' cannot be sent: a number in it is too large for a float"),
    (["call", "--worker", "{script}", "echo", "data.txt"], 65, "a text has quotes of its own within those of the shell: '\"text\"'"),
    (["call", "--worker", "{script}", "echo", "{{bad"], 65, "quote it for the shell, such as '{\"value\": 1}'"),
    (["call", "--worker", "{script}", "echo", '{{"a": [{{"k": 1, "k": 2}}]}}'], 65, "body has the key 'k' twice in one object"),
])
def test_a_mistake_is_told_with_what_helps(cli: Any, script: str, argv: list[str], code: int, told: str) -> None:
    files = {"script": script, "broken": str(Path(script).with_name("broken.py")), "empty": str(Path(script).with_name("empty.py"))}
    Path(files["broken"]).write_text("1 / 0\n")
    Path(files["empty"]).touch()
    got, _, err = cli(*(word.format(**files) if "{" in word else word for word in argv))
    assert got == code and told in err, err


def test_a_body_of_standard_input_is_not_to_be_quoted_for_a_shell(cli: Any, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{bad")))
    _, _, err = cli("call", "--worker", script, "echo", "-")
    assert "is not JSON: " in err and "shell" not in err


def test_a_refusal_at_import_is_told_once(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("open('/etc/shadow')\n")
    code, _, err = cli("call", "--worker", str(tmp_path / "worker.py"), "x")
    assert code == 78 and err.count("\n") == 1 and err.count("refused by ") == 1


def test_tables_fit_into_a_narrow_terminal_and_break_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("NAME", "WHAT IT DOES", "EVIDENCE"), ("short", "a text of some words " * 4, "more and more of it " * 3),
            ("pools.a.limits.memory", "x", "y")]
    whole = output.table(rows)
    assert max(map(len, whole.splitlines())) > 100
    for room in (60, 80):
        monkeypatch.setattr(output, "width", lambda room=room: room)
        narrow = output.table(rows)
        assert max(map(len, narrow.splitlines())) <= room and "pools.a.limits.memory" in narrow
        assert sorted(narrow.split()) == sorted(whole.split())
    monkeypatch.setattr(output, "width", lambda: 20)
    assert output.table(rows)  # too narrow for anything, and still shown


def test_a_function_is_shown_as_a_signature(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SIGNATURES)
    code, out, _ = cli("functions", "--worker", str(tmp_path / "worker.py"))
    assert (code, out.splitlines()[1:]) == (0, [
        "predict(object) -> object", "area(width: number, height: number = 2.0) -> number",
        'pick(c: "a" | "b", when: date | null = null, points: [Point] = …, weights: {string: number} | null = null) -> [integer]',
        "poly(x: integer, y: integer = 0) -> [Point]", "numbers(integer) -> stream of [integer, string]", "anything(any) -> any",
        "raw(bytes) -> bytes"])


SIGNATURES = """
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from pyproc_worker import expose

@dataclass
class Point:
    x: int
    y: int = 0

@expose
def predict(req: dict) -> dict: ...
@expose
def area(width: float, height: float = 2.0) -> float: ...
@expose
def pick(c: Literal["a", "b"], when: datetime.date | None = None, points: list[Point] = [],
         weights: dict[str, float] | None = None) -> set[int]: ...
@expose
def poly(req: Point) -> list[Point]: ...
@expose
def numbers(n: int) -> Iterator[tuple[int, str]]:
    yield 1, "a"
@expose
def anything(x): ...
@expose
def raw(b: bytes) -> bytes: ...
"""


def test_init_that_fails_leaves_no_folder_and_makes_none_beside(cli: Any, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len("half of worker.py"), before[1]))
    try:
        code, _, _ = cli("init", str(tmp_path / "new" / "project"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, list(tmp_path.iterdir())) == (78, [])
    assert cli("init", str(tmp_path / "nowhere" / ".." / "project"))[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_a_terminal_is_told_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        told.set()

    monkeypatch.setattr(output, "tell", tell)
    monkeypatch.setattr(output, "PATIENCE_SECONDS", 0.01)
    with output.waiting("nobody"):  # no terminal
        pass
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with output.waiting("script 'x' to be loaded"):
        assert told.wait(30)
    assert said == ["pyproc: waiting for script 'x' to be loaded; Ctrl-C ends it"]


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

    monkeypatch.setattr("pyproc.cli.target.configuration", broken)
    code, _, err = cli("doctor")
    assert code == 70
    assert "KeyError" in err
    assert output.exit_code(ConfigError("x")) == 78


@pytest.mark.parametrize("argv", ["doctor", "--help"])
def test_closed_pipe_is_quiet(argv: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        run = subprocess.run([*PYPROC, argv], stdout=gone, stderr=subprocess.PIPE, timeout=30, env=environment(),
                             check=False)
    assert (run.returncode, run.stderr) == (141, b"")


def redirected(redirection: str, *argv: str) -> tuple[int, str, str]:
    run = subprocess.run(["sh", "-c", f'exec "$@" {redirection}', "sh", *PYPROC, *argv], capture_output=True, text=True,
                         timeout=30, env=environment(), check=False)
    return run.returncode, run.stdout, run.stderr


@pytest.mark.parametrize(("redirection", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
@pytest.mark.parametrize("argv", [("--version",), ("--help",), ("call", "-h"), ("doctor",), ("attack", "--list", "--json"),
                                  ("functions", "--worker", "SCRIPT"), ("call", "--worker", "SCRIPT", "echo", "5")])
def test_result_that_cannot_be_written_is_an_error(script: str, argv: tuple[str, ...], redirection: str, why: str) -> None:
    argv = tuple(script if word == "SCRIPT" else word for word in argv)
    assert redirected(redirection, *argv) == (74, "", f"pyproc: io: standard output cannot be written: {why}\n")


@pytest.mark.parametrize(("redirection", "why"), [("<&-", "it is closed"), ("0>/dev/null", "Bad file descriptor")])
def test_body_that_cannot_be_read_is_an_error(script: str, redirection: str, why: str) -> None:
    told = f"standard input cannot be read: {why}"
    assert redirected(redirection, "call", "--worker", script, "echo", "-") == (74, "", f"pyproc: io: {told}\n")
    code, out, err = redirected(redirection, "call", "--worker", script, "echo", "-", "--json")
    assert (code, json.loads(out), err) == (74, {"ok": False, "error": {"code": "io", "message": told}}, "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "--json >&-", "--json >/dev/full"])
def test_error_that_cannot_be_told_keeps_its_exit_code(script: str, redirection: str) -> None:
    code, out, err = redirected(redirection, "call", "--worker", script, "nope")
    assert (code, out) == (66, "")
    assert err.startswith("pyproc: not_found: ") or "2>" in redirection


def test_log_that_cannot_be_written_keeps_the_exit_code(script: str) -> None:
    assert redirected("2>/dev/full", "call", "--worker", script, "boom", "--log") == (1, "", "")


def test_attacks_need_no_standard_error(script: str) -> None:
    code, out, _ = redirected("2>&-", "attack", "--attack", "resources.limit-by-prlimit", "--no-controls")
    assert code == 0 and out.endswith("the sandbox holds\n")


def test_the_peer_of_a_measurement_is_out_of_reach_of_ctrl_c() -> None:
    """A terminal sends its interrupt to the group in the foreground."""
    with PingPong(b"x", b"y") as made:
        assert os.getpgid(made._peer.pid) != os.getpgid(0)


def test_closed_streams_are_no_worker_s_channel(script: str) -> None:
    assert redirected("<&- 2>&-", "call", "--worker", script, "echo", "5") == (0, "5\n", "")


@pytest.mark.parametrize("at", ["pyproc.cli.output", "click", "msgspec", "pyproc.errors"])
@pytest.mark.parametrize("enter", ["from pyproc.cli.main import main; main()",
                                   "import runpy; runpy.run_module('pyproc', run_name='__main__')"])
def test_interrupt_while_the_program_loads_is_quiet(enter: str, at: str) -> None:
    code = f"""
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{at}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
{enter}
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, env=environment(), check=False)
    assert (run.returncode, run.stdout, run.stderr) == (130, b"", b"")


def test_interrupt_of_which_a_library_makes_another_error_is_quiet() -> None:
    code = """
import os, signal, sys
class Wrapping:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt as error:
                raise RuntimeError("wrapped") from error
sys.meta_path.insert(0, Wrapping())
from pyproc.cli.main import main
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, env=environment(), check=False)
    assert (run.returncode, run.stdout, run.stderr) == (130, b"", b"")


def test_interrupt_that_cannot_be_told_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyproc.cli.target.configuration", interrupted)
    monkeypatch.setattr(sys, "stderr", Full())
    assert program.run(["doctor"]) == 130


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
        for _ in range(3):  # in impatience: the exit code stays
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
    code, out, _ = cli("attack", "--list", "--attack", "ipc")
    assert code == 0 and "9 attacks in 1 classes" in out and "kernel." not in out


def test_attack_proves_each_attack_that_it_stops(cli: Any) -> None:
    code, out, _ = cli("attack", "--attack", "startup", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["verdicts"]) == (0, True, {"stopped": 10})
    proven = [attack["answers"]["control"] for attack in found["attacks"] if not attack["proof"].startswith("no control: ")]
    assert len(proven) >= 7 and all(answer.startswith("ESCAPED") for answer in proven)
    assert all({"call", "import"} <= attack["answers"].keys() for attack in found["attacks"])
    assert found["layers"]["seccomp"]["state"] == "enforced" and len(found["filter_sha256"]) == 64


def test_attack_finds_an_open_door(cli: Any) -> None:
    code, out, _ = cli("attack", "--attack", "resources.limit-by-prlimit", "--no-controls", "--layer", "seccomp=off")
    assert code == 1
    assert "seccomp off" in out and "open: resources.limit-by-prlimit" in out and "seccomp is off" in out
    assert out.endswith("does NOT hold\n")


def test_attack_says_what_a_profile_grants(cli: Any) -> None:
    code, out, _ = cli("attack", "--attack", "processes.fork", "--no-controls", "--profile", "default")
    assert code == 0 and "granted: processes.fork" in out and "limits.processes" in out


def test_attack_names_a_wrong_attack_and_the_classes(cli: Any) -> None:
    code, _, err = cli("attack", "--attack", "nonsense")
    assert code == 2 and "'nonsense'" in err and "credentials" in err


TWO_POOLS = """
[pools.one]
script = "worker.py"
[pools.two]
script = "worker.py"
sandbox = { layers = { seccomp = "off" } }
"""


@pytest.mark.parametrize("verb", [("attack", "--attack", "resources.limit-by-prlimit", "--no-controls"), ("call", "echo", "1"),
                                  ("functions",)])
def test_of_several_pools_one_must_be_chosen(cli: Any, script: str, verb: tuple[str, ...]) -> None:
    config = Path(script).with_name("pyproc.toml")
    config.write_text(TWO_POOLS)
    code, _, err = cli(*verb, "--config", str(config))
    assert code == 78 and "2 pools, one, two; choose one by --pool NAME" in err
    code, _, err = cli(*verb, "--config", str(config), "--pool", "three")
    assert code == 2 and f"--pool is 'three', and config '{config}' has one, two" in err
    assert cli(*verb, "--config", str(config), "--pool", "one")[0] == 0


def test_what_is_said_of_a_sandbox_is_of_the_chosen_pool_s(cli: Any, script: str) -> None:
    config = Path(script).with_name("pyproc.toml")
    config.write_text(TWO_POOLS)
    verb = ("attack", "--attack", "resources.limit-by-prlimit", "--no-controls", "--config", str(config), "--pool")
    assert cli(*verb, "one")[0] == 0
    code, out, _ = cli(*verb, "two")
    assert code == 1 and "seccomp off" in out


def test_worker_with_a_configuration_is_that_script_with_the_pool_s_options(cli: Any, script: str) -> None:
    config = Path(script).with_name("p.toml")
    config.write_text('[pools.a]\nscript = "absent.py"\ntimeout = "1 ms"\n')
    assert cli("call", "spin", "1", "--config", str(config), "--worker", script)[0] == 124
    config.write_text('[pools.a]\ntimeout = "1 ms"\n')
    assert cli("call", "spin", "1", "--config", str(config), "--worker", script)[0] == 124
    config.write_text(TWO_POOLS)
    assert cli("call", "echo", "1", "--config", str(config), "--worker", script)[0] == 78
    assert cli("call", "echo", "1", "--config", str(config), "--worker", script, "--pool", "one") == (0, "1\n", "")
    code, _, err = cli("call", "echo", "1", "--worker", script, "--pool", "one")
    assert code == 2 and "--pool names a pool of a configuration" in err


def test_configuration_of_this_folder_is_the_default(cli: Any, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(script).parent)
    assert cli("functions")[0] == 2
    assert "no configuration" in cli("functions", "--pool", "a")[2]
    Path("pyproc.toml").write_text('[pools.a]\nscript = "worker.py"\ntimeout = "1 ms"\n')
    assert cli("call", "spin", "1")[0] == 124
    assert cli("call", "echo", "1", "--worker", script)[1] == "1\n"  # a script alone is not the folder's pool
    monkeypatch.setenv("PYPROC_POOLS__A__TIMEOUT", "30 s")
    assert cli("call", "echo", "1")[1] == "1\n"


def test_no_text_forges_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    output.fail({"code": "config", "message": "x\npyproc: remedy: evil\x1b[1m"}, as_json=False)
    assert capfd.readouterr().err == "pyproc: config: x\\npyproc: remedy: evil\\x1b[1m\n"
    assert output.table([("a\nb", "c")]) == "a\\nb  c"
