"""A hostile import: the script speaks on the zygote's control channel, descriptor 3, in the zygote's place.

    supervisor                     zygote
       | <---- {"listener": n} ---- |
       | ----- "L" ---------------> | imports the script, which is the attacker from here on
       | <---- {"loaded": true} --- |
       | ----- "F", descriptors --> | forks a worker

Whatever the script says, the pool is refused with an error of ours, and nothing is left behind: no process, no descriptor
(the suite counts both after each test), and no worker ever serves.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pyproc import ConfigError, Pool, ProtectionUnavailable, PyprocError, Sandbox, WorkerLost
from pyproc.supervisor import children

pytestmark = pytest.mark.unprivileged

PREAMBLE = """
import array, json, os, socket, time
import msgspec
from pyproc_worker import expose

@expose
def echo(req):
    return req

control = socket.socket(fileno=3)

def frame(payload):
    return len(payload).to_bytes(4, "big") + payload

def say(message):
    control.sendall(frame(json.dumps(message).encode()))
"""
POSE = """
say({"loaded": True})
functions = {"echo": {"input": {}, "output": {}, "stream": False, "timeout": None, "idempotent": False}}
while True:
    data, fds, flags, peer = socket.recv_fds(control, 1, 6)
    os.write(fds[4], frame(msgspec.msgpack.encode({"ready": {"functions": functions}})))
    for fd in fds:
        os.close(fd)
"""
DIED = "died more than 5 times|out of turn"  # it came up, and then each of its workers, or itself, was ended
LIES = {  # what is said at import -> (the script's last lines, what the refusal says)
    "a length of 4 GiB": ("control.sendall(b'\\xff' * 4); time.sleep(60)", "announces 4294967295 bytes"),
    "no JSON": ("control.sendall(frame(b'\\x80\\x04\\x95')); time.sleep(60)", "not (a )?JSON"),
    "a list": ("say([1]); time.sleep(60)", "not (a )?JSON"),
    "a hundred thousand nested lists": ("control.sendall(frame(b'[' * 100_000)); time.sleep(60)", "not (a )?JSON"),
    "an empty frame": ("control.sendall(frame(b'')); time.sleep(60)", "not (a )?JSON"),
    "a second listener": ("say({'listener': 7}); time.sleep(60)", "out of turn"),
    "a refused fork that nobody asked for": ("say({'fork_failed': 11}); time.sleep(60)", "out of turn"),
    "loaded, with something else": ("say({'loaded': 1}); time.sleep(60)", "out of turn"),
    "loaded twice": ("say({'loaded': True}); say({'loaded': True}); time.sleep(60)", DIED),
    "the end of the channel": ("control.shutdown(socket.SHUT_RDWR); time.sleep(60)", "hung up"),
    "an exit": ("os._exit(0)", "hung up|ended"),
    "itself as the worker": (POSE, DIED),
}


def write(folder: Path, lines: str) -> Path:
    script = folder / "liar.py"
    script.write_text(PREAMBLE + lines + "\n", encoding="utf-8")
    return script


@pytest.mark.parametrize("lie", LIES)
def test_a_zygote_that_lies_never_serves(lie: str, tmp_path: Path) -> None:
    lines, refusal = LIES[lie]
    with pytest.raises(PyprocError, match=refusal):
        Pool(write(tmp_path, lines))


def test_a_zygote_cannot_choose_the_length_of_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Pool(write(tmp_path, "say({'failed': {'text': 'y' * 400_000, 'refused': None}}); time.sleep(60)"))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("failed", [{"layer": "landlock", "text": "off\npyproc: remedy: evil"},
                                    {"text": "E: off\rpyproc: remedy: evil", "refused": None}])
def test_a_script_forges_neither_a_layers_failure_nor_a_line(tmp_path: Path, failed: dict[str, object]) -> None:
    with pytest.raises(PyprocError) as caught:
        Pool(write(tmp_path, f"say({{'failed': {failed!r}}}); time.sleep(60)"))
    assert not isinstance(caught.value, ProtectionUnavailable) and str(caught.value).isprintable()


def test_descriptors_from_a_zygote_are_not_kept(tmp_path: Path) -> None:
    """Profile strict has no sendmsg; the count of descriptors is the suite's own check."""
    lines = ("control.sendmsg([b'\\0'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 20))])\n"
             "time.sleep(60)")
    with pytest.raises(PyprocError, match="hung up"):
        Pool(write(tmp_path, lines), sandbox=Sandbox("default"))


def test_an_import_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "BOOT_SECONDS", 1.0)
    with pytest.raises(PyprocError, match="not loaded within"):
        Pool(write(tmp_path, "time.sleep(60)"))


@pytest.mark.parametrize(("profile", "cause"), [("default", "sent descriptors"), ("strict", "hung up")])  # strict: no sendmsg
def test_a_worker_that_introduces_itself_with_descriptors_never_serves(
    profile: str, cause: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The greeting socket is all that could carry them: calls go through pipes."""
    lines = """
from pyproc_worker import channel

def greet(self, ready):
    greeting = socket.socket(fileno=5)
    greeting.sendmsg([ready], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 20))])

channel.Channel.greet = greet
"""
    with pytest.raises(PyprocError, match="died more than"):
        Pool(write(tmp_path, lines), sandbox=Sandbox(profile))
    assert cause in caplog.text


def test_an_import_that_writes_without_end_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "pyproc"), pytest.raises(PyprocError, match="writes without end"):
        Pool(write(tmp_path, "while True: os.write(1, b'x' * 65536)"))
    assert sum(len(record.getMessage()) for record in caplog.records) < 4 << 20


def test_a_worker_that_asks_the_supervisor_without_end_is_ended(tmp_path: Path) -> None:
    lines = """
import signal, threading

@expose
def flood():
    while True:
        signal.pthread_kill(threading.get_ident(), 0)
"""
    with Pool(write(tmp_path, lines)) as pool:
        with pytest.raises(WorkerLost) as caught:
            pool.call("flood", timeout=25)
        assert caught.value.reason == "process_limit"
        assert pool.call("echo", 1) == 1
