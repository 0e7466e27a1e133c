"""A stand-alone worker while a function holds it: who is served, answered and let go meanwhile."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyproc_worker import server, session, standalone
from pyproc_worker.call import check_cancelled
from pyproc_worker.registry import Registry


class Client:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")

    def send(self, message: object) -> None:
        raw = json.dumps(message).encode()
        self.socket.sendall(struct.pack(">I", len(raw)) + raw)

    def take(self) -> Any:
        (size,) = struct.unpack(">I", self._file.read(4))
        return json.loads(self._file.read(size))

    def ask(self, id: int, method: str, body: object = None, **fields: object) -> Any:
        self.send({"id": id, "method": method, "body": body, **fields})
        return self.take()

    def ended(self) -> bool:
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Served:
    """A server in a thread of this process. `hold` blocks until `gate` is opened and does not look for its caller."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s"
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        registry = Registry()
        registry.add(self.hold)
        registry.add(self.hold, name="short", timeout=0.05)
        registry.add(self.flood)
        registry.add(self.look)
        registry.add(lambda body: body, name="echo")
        registry.freeze()
        self.listener = standalone.listen(str(self.path))
        self.server = server.Server(self.listener, registry, None, server.Log("error"), lambda: None)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.clients: list[Client] = []

    def hold(self) -> str:
        self.begun.release()
        assert self.gate.acquire(timeout=20)
        return "released"

    def look(self) -> None:
        self.begun.release()
        while True:
            check_cancelled()

    def flood(self) -> Iterator[str]:
        for _ in range(100):
            yield "x" * 400_000

    def client(self) -> Client:
        self.clients.append(Client(self.path))
        return self.clients[-1]

    def holding(self) -> Client:
        client = self.client()
        client.send({"id": 1, "method": "hold"})
        assert self.begun.acquire(timeout=10)
        return client

    def close(self) -> None:
        self.gate.release(100)
        for client in self.clients:
            client.close()
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.server.close()
        self.listener.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    it = Served(tmp_path)
    try:
        yield it
    finally:
        it.close()


def test_health_and_refusals_do_not_wait(served: Served) -> None:
    served.holding()
    other = served.client()
    assert other.ask(1, "health")["body"]["status"] == "healthy"
    assert other.ask(2, "nobody")["code"] == "not_found"
    assert other.ask(3, "echo", deadline_ms=0)["code"] == "deadline_exceeded"
    assert other.ask(4, "health", [1])["code"] == "invalid_argument"


def test_a_cancellation_is_answered_at_once_and_the_result_is_dropped(served: Served) -> None:
    client = served.holding()
    client.send({"type": "cancellation", "payload": {"id": 1}})
    assert client.take()["code"] == "cancelled"
    client.send({"id": 1, "method": "echo", "body": "second"})
    served.gate.release()
    assert client.take() == {"id": 1, "ok": True, "body": "second"}


def test_a_waiting_call_is_withdrawn(served: Served) -> None:
    holder, other = served.holding(), served.client()
    other.send({"id": 5, "method": "hold"})
    other.send({"type": "cancellation", "payload": {"id": 5}})
    assert other.take()["code"] == "cancelled"
    served.gate.release()
    assert holder.take()["body"] == "released"
    assert other.ask(6, "echo", 1)["body"] == 1


@pytest.mark.parametrize(
    "fields",
    [{"method": "hold", "deadline_ms": 50}, {"method": "short"}, {"method": "short", "deadline_ms": 9000}],
)
def test_deadlines_are_answered_on_time(served: Served, fields: dict[str, Any]) -> None:
    client = served.client()
    client.send({"id": 1, **fields})
    assert client.take()["code"] == "deadline_exceeded"
    client.send({"id": 2, "method": "hold", "deadline_ms": 50})
    assert client.take()["code"] == "deadline_exceeded"  # it waited behind the first
    served.gate.release()
    assert client.ask(3, "echo", 1)["body"] == 1


def test_a_client_that_leaves_frees_the_function(served: Served) -> None:
    client = served.client()
    client.send({"id": 1, "method": "look"})
    assert served.begun.acquire(timeout=10)
    client.close()
    assert served.client().ask(1, "echo", 1)["body"] == 1


def test_a_client_that_does_not_read_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STALLED_SECONDS", 0.1)
    deaf = served.client()
    deaf.send({"id": 1, "method": "flood", "stream": True})
    deaf.send({"type": "credit", "payload": {"id": 1, "n": 100}})
    assert served.client().ask(1, "echo", 1)["body"] == 1


def test_many_connections_are_served_at_once(served: Served) -> None:
    clients = [served.client() for _ in range(60)]
    for number, client in enumerate(clients):
        client.send({"id": number, "method": "echo", "body": number})
    assert [client.take()["body"] for client in clients] == list(range(60))


def test_one_connection_too_many_is_told_and_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 1)
    first, second = served.client(), served.client()
    answer = second.take()
    assert (answer["id"], answer["code"], answer["bound"]) == (None, "resource_exhausted", "connections")
    assert answer["retry_after"] > 0 and second.ended()
    assert first.ask(1, "echo", 1)["body"] == 1


def test_too_many_calls_are_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WAITING_CALLS", 2)
    monkeypatch.setattr(session, "OPEN_CALLS", 3)
    client, other = served.holding(), served.client()
    for id in (2, 3):
        client.send({"id": id, "method": "echo"})
    client.send({"id": 4, "method": "echo"})
    refused = client.take()
    assert (refused["id"], refused["code"], refused["bound"]) == (4, "resource_exhausted", "in_flight")
    assert other.ask(1, "echo")["bound"] == "queue"
    served.gate.release()
    assert [client.take()["id"] for _ in range(3)] == [1, 2, 3]


def test_an_id_that_is_open_is_refused_and_the_open_call_untouched(served: Served) -> None:
    client = served.holding()
    assert client.ask(1, "echo")["id"] is None
    served.gate.release()
    assert client.take() == {"id": 1, "ok": True, "body": "released"}


def test_a_stop_finishes_the_running_call_and_refuses_the_rest(tmp_path: Path) -> None:
    script, path, gate = tmp_path / "worker.py", tmp_path / "s", tmp_path / "gate"
    os.mkfifo(gate)
    script.write_text(
        "from pyproc_worker import expose, run_worker\n"
        "@expose\n"
        "def hold(gate):\n"
        "    with open(gate) as file:\n"
        "        return file.read()\n"
        "run_worker()\n"
    )
    env = {**os.environ, "PYPROC_SOCKET_PATH": str(path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, str(script)], env=env) as child:
        try:
            for _ in range(1000):
                if path.exists():
                    break
                threading.Event().wait(0.01)
            client = Client(path)
            client.send({"id": 1, "method": "hold", "body": str(gate)})
            writer = os.open(gate, os.O_WRONLY)  # returns when the function has begun to read
            client.send({"id": 2, "method": "hold", "body": str(gate)})
            assert client.ask(3, "health")["ok"]
            child.send_signal(signal.SIGTERM)
            while client.ask(4, "hold", str(gate), deadline_ms=20)["code"] != "unavailable":
                pass
            os.write(writer, b"done")
            os.close(writer)
            assert client.take() == {"id": 1, "ok": True, "body": "done"}
            assert (client.take()["code"], client.ended()) == ("unavailable", True)
            client.close()
            assert child.wait(10) == 0
        finally:
            child.kill()
    assert not path.exists()


def test_without_a_descriptor_it_waits_and_then_serves(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    failed = threading.Semaphore(0)

    def write(level: str, event: str, **fields: Any) -> None:
        if event == "accept_failed" and fields == {"errno": errno.EMFILE}:
            told.append(time.monotonic())
            failed.release()

    monkeypatch.setattr(served.server._log, "write", write)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        client.connect(str(served.path))
        for _ in range(3):
            assert failed.acquire(timeout=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told[2] - told[0] > server.FULL_SECONDS
    with client:
        assert served.client().ask(1, "echo", 1)["body"] == 1
