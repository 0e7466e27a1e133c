"""`pyproc policy learn`: what it proposes serves the worker, no part of it is too many, and learning itself lets nothing out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import platform
import socket
import tempfile
import tomllib
from typing import Any

import pytest

from pyproc import ConfigError, Limits, Pool, PyprocError, Sandbox
from pyproc.cli.program import run
from pyproc.policy.learn import Learner
from pyproc.policy.observe import Call, observing
from pyproc.pool import options
from pyproc.sandbox import derive, profile
from pyproc.sandbox.oci_export import to_oci
from pyproc.sandbox.rules import ACTION_MASK, NOTIFY, syscall_table
from pyproc.sandbox.verdict import Change

WORKER = """
import sqlite3
import threading
import {module}
from pyproc_worker import expose

with open({model!r}) as file:
    MODEL = file.read()

@expose
def model():
    return MODEL + open({more!r}).read() + {module}.WORD

@expose
def database():
    with sqlite3.connect("/scratch/x.db") as made:
        made.execute("create table if not exists t(x)")
        made.execute("delete from t")
        made.execute("insert into t values(1)")
        return made.execute("select count(*) from t").fetchone()[0]

@expose
def together():
    barrier = threading.Barrier(25)
    threads = [threading.Thread(target=barrier.wait) for _ in range(24)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        barrier.abort()
        raise
    barrier.wait()
    for thread in threads:
        thread.join()
    return len(threads)

@expose
def looks():
    try:
        return open({optional!r}).read() and 0
    except OSError:
        return 0
"""
METHODS = ("model", "database", "together", "looks")


def open_the_way(place: pathlib.Path) -> None:
    """The workers of root have a uid of their own, and are shown only what that uid reaches by itself."""
    for folder in (place, *place.parents[:3]):
        if folder.stat().st_uid == os.geteuid() and folder != pathlib.Path("/tmp"):
            folder.chmod(0o755)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    open_the_way(tmp_path)
    for name in ("model.txt", "more.txt", "optional.txt"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o644)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "beside.py").write_text("WORD = 'word'\n")
    (tmp_path / "code" / "worker.py").write_text(WORKER.format(
        module="beside", model=str(tmp_path / "model.txt"), more=str(tmp_path / "more.txt"), optional=str(tmp_path / "optional.txt")))
    return tmp_path


def learnt(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON document and standard error of `pyproc policy learn`."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = run(["policy", "learn", "--json", *arguments])
    return status, json.loads(out.getvalue()), err.getvalue()


def serves(script: pathlib.Path, sandbox: dict[str, Any], limits: dict[str, Any]) -> bool:
    """Whether a pool with these keys answers all calls well."""
    try:
        with Pool(script, sandbox=Sandbox(**sandbox), limits=Limits(**limits)) as pool:
            return [pool.call(method) for method in METHODS] == ["model.txtmore.txtword", 1, 24, 0]
    except (ConfigError, PyprocError):
        return False


@pytest.mark.unprivileged
@pytest.mark.slow
def test_a_proposal_serves_and_with_one_key_less_it_does_not(place: pathlib.Path) -> None:
    script, saved = place / "code" / "worker.py", place / "saved"
    code, document, told = learnt("--worker", str(script), "--save", str(saved), "--", *METHODS)
    assert code == 0 and document["ok"] and document["proven"] and document["results_compared"], document
    assert "throw-away sandboxes" in told and "serve nobody" in told
    pool = tomllib.loads((saved / "pyproc.toml").read_text())["pools"]["pool"]
    sandbox, limits = pool["sandbox"], pool["limits"]
    assert set(sandbox["read"]) == {str(place / "model.txt"), str(place / "more.txt"), str(place / "code")}
    assert limits["threads"] == 32 and set(limits) <= {"threads", "memory"}  # without a group memory is address space, stacks too
    assert sandbox["profile"] == str(saved / "profile.json")
    assert serves(script, sandbox, limits)
    less = [({**sandbox, "read": [path for path in sandbox["read"] if path != left_out]}, limits) for left_out in sandbox["read"]]
    less += [({**sandbox, "profile": "default"}, limits), ({key: sandbox[key] for key in ("read", "profile")}, limits)]
    less += [(sandbox, {key: limits[key] for key in limits if key != left_out}) for left_out in limits]
    assert [serves(script, *keys) for keys in less] == [False] * len(less)
    assert f'+  "{place / "model.txt"}",' in document["diff"] and "+threads = 32" in document["diff"]
    reasons = {str(need.get("value", need.get("system_call"))): need["reasons"] for need in document["needed"]}
    assert {reason["where"] for reason in reasons[str(place / "model.txt")]} == {"import"}
    assert {reason["where"] for reason in reasons[str(place / "more.txt")]} == {"model"}
    assert {reason["where"] for reason in reasons["fcntl"]} == {"database"}
    assert {need.get("value") for need in document["unneeded"]} >= {str(place / "optional.txt")}


HOSTILE = """
import os, socket
from pyproc_worker import expose

SECRETS = {secrets!r}

def attempt(action, *arguments):
    try:
        return repr(action(*arguments))
    except Exception as error:
        return type(error).__name__

def read(path):
    return open(path).read()

def dial(address):
    made = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    made.connect(address)
    return "CONNECTED"

@expose
def attack():
    told = [attempt(read, path) for path in SECRETS]
    told += [attempt(dial, address) for address in ({unix!r}, {tcp!r})]
    told += [attempt(lambda: open({target!r}, "w").write("ESCAPED")), attempt(os.unlink, {victim!r}), attempt(os.kill, {pid}, 9)]
    told += [attempt(os.execv, "/bin/sh", ["sh", "-c", "echo > " + {target!r}])]
    told += [attempt(os.listdir, "/proc"), attempt(os.listdir, "/home")]
    return told

attack()
"""


@pytest.mark.unprivileged
def test_learning_lets_a_hostile_worker_reach_nothing(tmp_path: pathlib.Path) -> None:
    open_the_way(tmp_path)
    keys = tmp_path / ".ssh"
    keys.mkdir()
    for path in (keys / "id_ed25519", tmp_path / "id_rsa", tmp_path / "victim"):
        path.write_text("SECRET")
        path.chmod(0o644)
    with contextlib.ExitStack() as stack:
        unix, tcp = stack.enter_context(socket.socket(socket.AF_UNIX)), stack.enter_context(socket.socket())
        folder = os.open(tmp_path, os.O_PATH)
        stack.callback(os.close, folder)
        unix.bind(f"/proc/self/fd/{folder}/listener")  # the path as a whole may be longer than an address
        tcp.bind(("127.0.0.1", 0))
        for listener in (unix, tcp):
            listener.listen()
            listener.setblocking(False)
        script = tmp_path / "worker.py"
        secrets = [str(keys / "id_ed25519"), str(tmp_path / "id_rsa"), "/etc/shadow", "/proc/1/environ"]
        script.write_text(HOSTILE.format(
            secrets=secrets, unix=str(tmp_path / "listener"), tcp=tcp.getsockname(),
            target=str(tmp_path / "escaped"), victim=str(tmp_path / "victim"), pid=os.getpid()))
        lesson = Learner(options.read(script).spec, [Call("attack")], 20.0, lambda text: None).learn(str(tmp_path / "profile.json"))
        for listener in (unix, tcp):
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert not (tmp_path / "escaped").exists() and (tmp_path / "victim").exists()
    asked = {str(part) for part in (*lesson.needed, *lesson.unneeded)}
    assert not any(secret in part for part in asked for secret in (".ssh", "id_rsa", "shadow", "/proc", "/home")), asked
    assert any(".ssh" in what for what in lesson.refused) and any("id_rsa" in what for what in lesson.refused)


ASKS = """
import os, socket, stat
from pyproc_worker import PublicError, expose

def read(path):
    if path.endswith("listener"):
        made = socket.socket(socket.AF_UNIX)
        made.connect(path)
        return "SECRET"
    return open(path).read()

@expose
def go():
    for path in {asked!r}:
        try:
            os.listdir(path) if path.endswith("/folder") else read(path)
        except OSError:
            continue
    try:
        found = read({secret!r})
    except OSError:
        return
    if "SECRET" in found:
        raise PublicError("it was reached")

go()
"""
FOLDERS = {  # what of a folder a worker asks for -> the secret that it would be shown with it
    "many files": (tuple(f"folder/{n}" for n in range(40)), "folder/.ssh/config"),
    "the folder": (("folder",), "folder/.ssh/config"),
    "a link to it": (("folder/link",), "folder/.ssh/config"),
    "a link in a folder without secrets": (("beside/link",), "folder/.ssh/config"),
    "below a link": (("beside/keys/config",), "beside/keys/config"),
    "the folder of the script": ((), "code/.env"),
    "a folder with a socket": (("sockets/folder",), "sockets/folder/listener"),
}


BY_MODES = ("a link to it", "a folder with a socket")  # what such a user does not reach is not asked for in the first place


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.unprivileged) if way in BY_MODES else way for way in FOLDERS])
def test_learning_shows_no_folder_with_a_secret_below_it(tmp_path: pathlib.Path, way: str) -> None:
    open_the_way(tmp_path)
    asked, secret = FOLDERS[way]
    for name in ("folder/.ssh", "beside", "code", "sockets/folder"):
        (tmp_path / name).mkdir(parents=True)
    files = [tmp_path / "folder" / str(n) for n in range(40)]
    for path in (*files, tmp_path / "folder/.ssh/config", tmp_path / "code/.env"):
        path.write_text("SECRET" if "." in str(path.relative_to(tmp_path)) else "plain")
    (tmp_path / "folder/link").symlink_to(".ssh/config")
    (tmp_path / "beside/link").symlink_to("../folder/.ssh/config")
    (tmp_path / "beside/keys").symlink_to("../folder/.ssh")
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    script = tmp_path / "code" / "worker.py"
    module = "import not_there_at_all\n" if way == "the folder of the script" else ""
    script.write_text(ASKS.format(asked=[str(tmp_path / name) for name in asked], secret=str(tmp_path / secret)) + module)
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(tmp_path / "sockets/folder", os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/listener")
        os.close(folder)
        (tmp_path / "sockets/folder/listener").chmod(0o777)
        listener.listen()
        lesson = Learner(options.read(script).spec, [Call("go")], 20.0, lambda text: None).learn(str(tmp_path / "profile.json"))
    assert not any(ended.text for ended in lesson.run.ended), lesson.run.ended
    shown = {str(part.value) for part in (*lesson.needed, *lesson.unneeded) if isinstance(part, Change) and part.key == "sandbox.read"}
    assert not any((tmp_path / secret).resolve().is_relative_to(pathlib.Path(path).resolve()) for path in shown), shown
    assert lesson.refused or way == "many files", "what is withheld is told"


@pytest.mark.skipif(os.geteuid() != 0, reason="root's workers have a uid of their own, others have their supervisor's")
def test_learning_as_root_shows_nothing_that_only_root_reaches(tmp_path: pathlib.Path) -> None:
    open_the_way(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "notes.txt").write_text("SECRET")
    (closed / "notes.txt").chmod(0o644)
    script = tmp_path / "worker.py"
    script.write_text(ASKS.format(asked=[], secret=str(closed / "notes.txt")))
    lesson = Learner(options.read(script).spec, [Call("go")], 20.0, lambda text: None).learn(str(tmp_path / "profile.json"))
    assert not any(ended.text for ended in lesson.run.ended), lesson.run.ended
    assert any("is closed to uid" in why for why, _ in lesson.refused.values()), lesson.refused


@pytest.mark.unprivileged
def test_what_cannot_be_allowed_is_said_and_is_not_proven(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import subprocess\nfrom pyproc_worker import expose\n@expose\ndef run():\n"
                      "    subprocess.run(['/bin/true'], check=True)\n")
    code, document, _ = learnt("--worker", str(script), "--", "run")
    assert code == 1 and not document["ok"] and document["calls"][0]["code"]
    assert any("/true" in refused["what"] for refused in document["refused"])


def test_a_profile_of_ones_own_is_extended_by_the_calls_that_are_needed(tmp_path: pathlib.Path) -> None:
    mine, script = tmp_path / "mine.json", tmp_path / "worker.py"
    mine.write_text(to_oci(profile.shipped("strict")))
    script.write_text("import os\nfrom pyproc_worker import expose\n@expose\ndef keep():\n"
                      "    os.mkdir('/scratch/made')\n    os.rmdir('/scratch/made')\n    return 1\n")
    code, document, _ = learnt("--worker", str(script), "--profile", str(mine), "--", "keep")
    assert code == 0, document
    calls = {"mkdir", "rmdir"} if "mkdir" in syscall_table(platform.machine()) else {"mkdirat", "unlinkat"}
    assert {need.get("system_call", need.get("key")) for need in document["needed"]} == {*calls, "sandbox.scratch"}
    allowed = {name for entry in document["profile"]["syscalls"] for name in entry["names"]}
    assert calls <= allowed and "socket" not in allowed


def test_a_worker_that_needs_nothing_gets_an_empty_diff(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("from pyproc_worker import expose\n@expose\ndef double(x: int) -> int:\n    return 2 * x\n")
    code, document, _ = learnt("--worker", str(script), "--", "double", "21")
    assert code == 0 and document["diff"] == "" and document["needed"] == document["unneeded"] == []


def test_nothing_that_exists_is_overwritten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "pyproc.toml").write_text("mine")
    (tmp_path / "worker.py").write_text("")
    code, document, _ = learnt("--worker", str(tmp_path / "worker.py"), "--save", str(tmp_path), "--", "x")
    assert code == 78 and "not overwritten" in document["error"]["message"] and (tmp_path / "pyproc.toml").read_text() == "mine"


def test_what_cannot_be_saved_is_shown_and_nothing_is_left(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
                                                           capfd: pytest.CaptureFixture[str]) -> None:
    script, saved = tmp_path / "worker.py", tmp_path / "saved"
    script.write_text("from pyproc_worker import expose\n@expose\ndef double(x: int) -> int:\n    return 2 * x\n")
    opened = pathlib.Path.open

    def full(path: pathlib.Path, mode: str = "r", **options: Any) -> Any:
        file = opened(path, mode, **options)
        if path.name == "pyproc.toml":
            monkeypatch.setattr(file, "write", refuse, raising=False)
        return file

    def refuse(text: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "open", full)
    argv = ("policy", "learn", "--worker", str(script), "--save", str(saved), "--", "double", "21")
    assert run(argv) == 78
    told = capfd.readouterr()
    assert "proven: " in told.out and "No space left on device; nothing was saved" in told.err and not list(saved.iterdir())
    assert run((*argv[:2], "--json", *argv[2:])) == 78
    document = json.loads(capfd.readouterr().out)
    assert not document["ok"] and document["proven"] and document["error"]["code"] == "config"


def test_without_a_temporary_folder_nothing_is_learnt(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**options: Any) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    (tmp_path / "worker.py").write_text("")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", none)
    with pytest.raises(ConfigError, match=r"no temporary folder can be made: .*TMPDIR"):
        Learner(options.read(tmp_path / "worker.py").spec, [Call("x")], 1.0, lambda text: None)


@pytest.mark.parametrize("name", profile.SHIPPED)
def test_the_observing_filters_ask_about_what_the_profile_refuses_and_keep_the_walls(name: str) -> None:
    own = profile.shipped(name)
    first, second = derive.zygote_rules(observing(own)), derive.worker_rules(observing(own))
    for call in ("openat", "connect", "memfd_create", "bpf", "mount"):
        assert first.decide(call) & ACTION_MASK == NOTIFY, call
    kept_shut = (("prctl", (22,)), ("prctl", (4,)), ("prctl", (1,)), ("capset", ()), ("landlock_add_rule", ()), ("setpgid", ()))
    for call, arguments in kept_shut:
        kept = derive.zygote_rules(own).decide(call, arguments)
        assert first.decide(call, arguments) == kept, call
    assert all(second.permits(call) for call in ("openat", "memfd_create"))  # the first filter's question stands
