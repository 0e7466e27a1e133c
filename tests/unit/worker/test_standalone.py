"""A stand-alone worker by its socket: both codecs, errors, turns, cancellation, breaches, and its end."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

SCRIPT = """
import time
from pyproc_worker import PublicError, check_cancelled, expose, run_worker

@expose
def double(req):
    return req["value"] * 2

@expose
def area(width: float, height: float) -> float:
    return width * height

@expose
def boom(req):
    raise RuntimeError("secret text")

@expose
def refuse(req):
    raise PublicError("not today")

@expose
def spin(req):
    while True:
        check_cancelled()
        time.sleep(0.002)

@expose
async def later(req):
    return "later"

@expose
def count(n: int):
    yield from range(n)

if __name__ == "__main__":
    run_worker()
"""


class Peer:
    def __init__(self, path: Path, codec: Any = msgspec.json) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.codec = codec

    def send(self, message: object) -> None:
        raw = message if isinstance(message, bytes) else self.codec.encode(message)
        self.socket.sendall(struct.pack(">I", len(raw)) + raw)

    def take(self) -> Any:
        length = struct.unpack(">I", self._exactly(4))[0]
        return self.codec.decode(self._exactly(length))

    def ask(self, method: str, body: object = None, **fields: object) -> Any:
        self.send({"id": 1, "method": method, "body": body, **fields})
        return self.take()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, f"ended after {data!r}"
            data += more
        return data


def start(folder: Path, *, cli: bool = False) -> tuple[subprocess.Popen[bytes], Path]:
    script, path = folder / "worker.py", folder / "w.sock"
    script.write_text(SCRIPT)
    argv = ["-m", "pyproc_worker.worker_cli", str(script)] if cli else [str(script)]
    env = {**os.environ, "PYPROC_SOCKET_PATH": str(path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen([sys.executable, *argv], env=env, stderr=subprocess.PIPE)
    for _ in range(1000):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return child, path
        assert child.poll() is None, child.stderr.read()  # type: ignore[union-attr]
        select.select([], [], [], 0.01)
    raise AssertionError("the worker did not begin to serve within 10 s")


def stop(child: subprocess.Popen[bytes]) -> tuple[int, str]:
    child.send_signal(signal.SIGTERM)
    try:
        _, errors = child.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise
    return child.returncode, errors.decode()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of the worker that all connections of this file share; tests of a worker's end start their own."""
    child, path = start(tmp_path_factory.mktemp("shared"))
    try:
        yield path
    finally:
        if child.poll() is None:
            stop(child)


@pytest.fixture
def peer(worker: Path) -> Iterator[Peer]:
    it = Peer(worker)
    with it.socket:
        yield it


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack])
def test_speaks_the_codec_of_the_client(worker: Path, codec: Any) -> None:
    it = Peer(worker, codec)
    with it.socket:
        assert it.ask("double", {"value": 21}) == {"id": 1, "ok": True, "body": 42}
        assert it.ask("area", {"width": 2.0, "height": 3.0})["body"] == 6.0
        assert it.ask("later")["body"] == "later"
        assert it.ask("count", 3)["body"] == [0, 1, 2]
        assert it.ask("health")["body"]["status"] == "healthy"


def test_stream(peer: Peer) -> None:
    peer.send({"id": 7, "method": "count", "body": 2, "stream": True})
    assert [peer.take() for _ in range(3)] == [
        {"id": 7, "part": 0}, {"id": 7, "part": 1}, {"id": 7, "ok": True, "body": None}]


@pytest.mark.parametrize(("method", "body", "code", "text"), [
    ("nobody", None, "not_found", "nobody"),
    ("area", {"width": 1.0}, "invalid_argument", "height"),
    ("refuse", None, "function_failed", "not today"),
    ("boom", None, "function_failed", "Processing failed"),
])
def test_failures(peer: Peer, method: str, body: object, code: str, text: str) -> None:
    answer = peer.ask(method, body)
    assert (answer["ok"], answer["code"]) == (False, code)
    assert text in answer["error"]
    assert "secret" not in json.dumps(answer)
    assert peer.ask("double", {"value": 1})["body"] == 2


def test_the_cause_is_logged_under_its_error_id(tmp_path: Path) -> None:
    child, path = start(tmp_path)
    it = Peer(path)
    with it.socket:
        answer = it.ask("boom")
    code, errors = stop(child)
    assert code == 0
    assert answer["error_id"] in errors
    assert "secret text" in errors


def test_cancellation_of_running_and_of_waiting(worker: Path) -> None:
    first, second = Peer(worker), Peer(worker)
    with first.socket, second.socket:
        first.send({"id": 1, "method": "spin"})
        second.send({"id": 2, "method": "spin"})
        second.send({"type": "cancellation", "payload": {"id": 2, "reason": "enough"}})
        assert second.take()["code"] == "cancelled"
        first.send({"type": "cancellation", "payload": {"id": 1, "reason": "enough"}})
        assert first.take()["code"] == "cancelled"
        assert second.ask("double", {"value": 4})["body"] == 8


def test_a_client_that_leaves_gives_its_turn_back(worker: Path) -> None:
    first, second = Peer(worker), Peer(worker)
    with second.socket:
        with first.socket:
            first.send({"id": 1, "method": "spin"})
        assert second.ask("double", {"value": 4})["body"] == 8


def test_deadline_is_over_before_the_call(peer: Peer) -> None:
    assert peer.ask("double", {"value": 1}, deadline_ms=0)["code"] == "deadline_exceeded"


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"[1]", b"{"])
def test_a_breach_is_answered_in_json_and_ends_the_connection(peer: Peer, payload: bytes) -> None:
    peer.send(payload)
    answer = peer.take()
    assert answer["ok"] is False
    assert answer["code"] == "invalid_argument"
    assert peer.socket.recv(1) == b""


def test_tenant_is_not_a_clients_to_say(peer: Peer) -> None:
    assert peer.ask("double", {"value": 1}, tenant="a")["code"] == "invalid_argument"


def test_socket_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    child, path = start(tmp_path, cli=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stop(child)[0] == 0
    assert not path.exists()


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    child, path = start(tmp_path)
    child.kill()
    child.communicate()
    assert path.exists()
    again, _ = start(tmp_path)
    assert stop(again)[0] == 0


def test_a_worker_that_is_stopped_as_soon_as_its_socket_is_seen_stops_in_order(tmp_path: Path) -> None:
    script, path = tmp_path / "worker.py", tmp_path / "w.sock"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYPROC_SOCKET_PATH": str(path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for _ in range(3):
        child = subprocess.Popen([sys.executable, str(script)], env=env, stderr=subprocess.PIPE)
        while not path.exists() and child.poll() is None:
            pass
        assert stop(child)[0] == 0
        assert not path.exists()


def test_foreign_things_are_left_alone(tmp_path: Path) -> None:
    from pyproc_worker import standalone

    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="not our socket"):
        standalone._clear(str(tmp_path / "file"))
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(tmp_path / "s"))
        alive.listen()
        with pytest.raises(OSError, match="another worker"):
            standalone._clear(str(tmp_path / "s"))
    assert (tmp_path / "file").read_text() == "mine"


def test_wrong_settings_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyproc_worker import standalone

    monkeypatch.delenv("PYPROC_SOCKET_PATH", raising=False)
    with pytest.raises(ValueError, match="PYPROC_SOCKET_PATH"):
        standalone.serve()
    with pytest.raises(ValueError, match="xml"):
        standalone.run_worker("/nonexistent/s", "xml")


def test_a_script_that_is_run_without_a_socket_says_so_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("from pyproc_worker import run_worker\nrun_worker()\n")
    env = {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"{script}: no socket to serve on: set PYPROC_SOCKET_PATH, pass socket_path")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("source", "code", "told"), [
    ("def f(:\n", 78, r"pyproc-worker: script '.*worker.py' is not Python: invalid syntax \(worker.py, line 1\)\n"),
    ("1 / 0\n", 1, r"Traceback \(most recent call last\):\n  File \".*worker.py\", line 1, in <module>\n.*ZeroDivisionError: .*\n"),
    ("import sys\nsys.exit(5)\n", 5, ""),
])  # fmt: skip
def test_a_script_that_cannot_be_loaded_is_told_without_frames_of_ours(tmp_path: Path, source: str, code: int, told: str) -> None:
    script = tmp_path / "worker.py"
    script.write_text(source)
    command = [sys.executable, "-m", "pyproc_worker.worker_cli", script, "--socket-path", tmp_path / "s"]
    env = {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert re.fullmatch(told, done.stderr, re.DOTALL), done.stderr


def test_supervised_returns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyproc_worker import standalone

    monkeypatch.setattr(standalone, "SUPERVISED", True)
    standalone.run_worker()
