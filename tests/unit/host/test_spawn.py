"""A program gets exactly what it is given, whatever state the host is in."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyproc.host import pidfd, spawn

REPORT = """
import json, os, signal, sys
links = {}
for fd in range(64):
    try: links[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError: pass
blocked = [n for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
ignored = [n for n in range(1, 65) if n not in (9, 19, 32, 33) and signal.getsignal(n) == signal.SIG_IGN]
text = json.dumps({"links": links, "env": dict(os.environ), "sid": os.getsid(0), "pid": os.getpid(), "pgid": os.getpgid(0),
                   "blocked": blocked, "ignored": ignored, "ppid": os.getppid()})
os.write(int(sys.argv[1]), text.encode())
"""
PYTHON = [sys.executable, "-I", "-S", "-c"]


def report(fds: dict[int, int], to: int = 1, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run REPORT with `fds` and descriptor `to` as the pipe on which it reports."""
    read, write = os.pipe()
    try:
        pid, held = spawn.spawn([*PYTHON, REPORT, str(to)], env=env or {}, fds={to: write, **fds})
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as file:
        told: dict[str, Any] = json.loads(file.read())
    assert pidfd.wait(held, 10)
    assert told["pid"] == pid
    assert spawn.reap(pid, held) == 0
    os.close(held)
    return told


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    fds = [os.open(tmp_path / str(n), os.O_CREAT | os.O_RDWR) for n in range(3)]
    yield fds
    for fd in fds:
        os.close(fd)


def test_the_environment_is_what_was_given(files: list[int]) -> None:
    told = report({}, env={"A": "1", "LC_CTYPE": "C.UTF-8"})
    assert told["env"] == {"A": "1", "LC_CTYPE": "C.UTF-8"}


def test_the_standard_descriptors_are_ours_to_choose(files: list[int]) -> None:
    told = report({}, to=5)
    assert [told["links"][str(fd)] for fd in (0, 1, 2)] == ["/dev/null"] * 3


def test_nothing_but_what_was_named_arrives(files: list[int]) -> None:
    inheritable = {str(fd) for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{fd}")
                   and os.get_inheritable(fd)}  # what the test runner left open is for the program's close_range
    told = report({0: files[0]})
    assert set(told["links"]) - inheritable <= {"0", "1", "2"}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_numbers_may_overlap_in_any_order(files: list[int], order: tuple[int, int, int]) -> None:
    """Targets that are sources of others, a cycle and the identity among them."""
    fds = {files[place]: files[source] for place, source in enumerate(order)}
    told = report(fds, to=max(files) + 1)
    for target, source in fds.items():
        assert told["links"][str(target)] == os.readlink(f"/proc/self/fd/{source}")


def test_one_source_may_serve_several_targets_above_sixty_four(files: list[int]) -> None:
    told = report({62: files[0], 63: files[0], 100: files[0]})
    assert told["links"]["62"] == told["links"]["63"] == os.readlink(f"/proc/self/fd/{files[0]}")


def test_it_leads_a_session_and_a_group_of_its_own() -> None:
    told = report({})
    assert told["sid"] == told["pgid"] == told["pid"]
    assert told["ppid"] == os.getpid()


def test_signals_are_at_their_defaults_and_none_is_blocked() -> None:
    code = ("import signal, sys, json, os; sys.path[:0] = json.loads(sys.argv[1])\n"
            "from pyproc.host import spawn, pidfd\n"
            "for n in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGRTMIN): "
            "signal.signal(n, signal.SIG_IGN)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGRTMAX})\n"
            "pid, held = spawn.spawn([*sys.argv[2:], '1'], env={}, fds={1: 1})\n"
            "assert pidfd.wait(held, 10); assert spawn.reap(pid, held) is None and spawn.reap(pid) is None\n")
    done = subprocess.run([sys.executable, "-c", code, json.dumps(sys.path), *PYTHON, REPORT], capture_output=True, text=True,
                          timeout=30, check=False)
    told = json.loads(done.stdout)
    assert told["blocked"] == []
    assert set(told["ignored"]) <= {signal.SIGPIPE, signal.SIGXFSZ}  # which Python itself ignores at its start


def test_many_threads_may_spawn_at_once() -> None:
    faults: list[BaseException] = []

    def run() -> None:
        try:
            report({})
        except BaseException as error:
            faults.append(error)
            raise

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_program_that_is_not_there_leaves_nothing(files: list[int]) -> None:
    with pytest.raises(FileNotFoundError):
        spawn.spawn(["/nonexistent/python"], env={}, fds={3: files[0]})


def test_a_source_that_is_not_open_is_an_error(files: list[int]) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        spawn.spawn(["/bin/true"], env={}, fds={3: files[0], 4: 999})


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_whatever_call_fails_no_child_and_no_descriptor_is_left(files: list[int], failing: Callable[..., Any], nth: int) -> None:
    names = ["fcntl", "posix_spawn", "pidfd_open"]
    failing(1, errno.EMFILE, names[nth - 1])
    with pytest.raises(OSError, match="made to fail"):
        spawn.spawn([*PYTHON, "input()"], env={}, fds={3: files[0]})


def test_a_child_that_the_host_reaped_first_is_an_error(failing: Callable[..., Any]) -> None:
    double = failing(1, errno.ESRCH, "pidfd_open")
    with pytest.raises(ProcessLookupError, match="ended as soon as it was started"):
        spawn.spawn(["/bin/true"], env={}, fds={})
    assert double.made == ["pidfd_open"]


def test_a_number_that_is_somebody_elses_child_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn.libc.kernel, "posix_spawn", lambda *a, **k: os.getpid(), raising=False)
    with pytest.raises(ProcessLookupError, match="ended as soon as it was started"):
        spawn.spawn(["/bin/true"], env={}, fds={})


def test_without_setsid_it_leads_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.posix_spawn

    def built_without(*arguments: Any, **options: Any) -> int:
        if options.get("setsid"):
            raise NotImplementedError
        return real(*arguments, **options)

    monkeypatch.setattr(spawn.libc.kernel, "posix_spawn", built_without, raising=False)
    told = report({})
    assert told["pgid"] == told["pid"] != told["sid"]


def test_reaping_tells_the_status_once_and_never_waits() -> None:
    pid, held = spawn.spawn([*PYTHON, "input(); import os; os._exit(3)"], env={}, fds={0: (ends := os.pipe())[0]})
    assert spawn.reap(pid, held) is None
    assert spawn.reap(pid) is None
    os.write(ends[1], b"\n")
    for fd in ends:
        os.close(fd)
    assert pidfd.wait(held, 10)
    assert spawn.reap(pid, held) == 3 << 8
    assert spawn.reap(pid, held) is None
    assert spawn.reap(pid) is None
    os.close(held)


def test_a_death_by_signal_is_told_as_one() -> None:
    pid, held = spawn.spawn([*PYTHON, "import signal; signal.pause()"], env={}, fds={})
    pidfd.kill(held)
    assert pidfd.wait(held, 10)
    assert spawn.reap(pid, held) == signal.SIGKILL
    os.close(held)
