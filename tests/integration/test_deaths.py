"""Each death reason of the contract by the act that gives it, as docs/reference/death-reasons.md says, through a pool.

Every test has a bystander: the other worker serves a stream, each part of which is compared while the death happens. A
death must cost one call, be counted once under its reason, and leave a pool that serves the next call.
"""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from pyproc import CallError, ConfigError, DeadlineExceeded, Limits, Pool, ResourceExhausted, Sandbox, WorkerLost
from pyproc.host import cgroup
from pyproc.supervisor import children

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("subject.py")


class Bystander:
    """A stream of one worker: `look` takes a part and compares it."""

    def __init__(self, pool: Pool) -> None:
        self._parts: Generator[int] = pool.stream("numbers", 1 << 40)
        self._seen = 0
        self.look()
        assert pool.call("echo", 0) == 0  # the second worker has come
        self.pid = self._pid(pool, "busy")
        self.victim = self._pid(pool, "idle")

    @staticmethod
    def _pid(pool: Pool, state: str) -> int:
        return next(worker["pid"] for worker in pool.status()["workers"] if worker["state"] == state)

    def look(self) -> None:
        assert next(self._parts) == self._seen
        self._seen += 1

    def look_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.look()

    def leave(self) -> None:
        self._parts.close()

    def __enter__(self) -> Bystander:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()


def state_of(pool: Pool, pid: int) -> str:
    return next((worker["state"] for worker in pool.status()["workers"] if worker["pid"] == pid), "gone")


def lose(call: Callable[[], Any], bystander: Bystander) -> CallError:
    """The error that `call` ends with, in a thread of its own while the bystander goes on."""
    with ThreadPoolExecutor(1) as executor:
        lost = executor.submit(call)
        while wait([lost], 0.005).not_done:  # not without a pause: the bystander has the same limits
            bystander.look()
    error = lost.exception()
    assert isinstance(error, CallError), f"it ended with {error!r}, answered {None if error else lost.result()!r}"
    return error


def check(pool: Pool, bystander: Bystander, deaths: dict[str, int], **ledger: int) -> None:
    """The next call is served, the deaths are counted, one call is in its bucket, and the bystander is who it was."""
    assert pool.call("echo", "next") == "next"
    status = pool.status()
    assert status["deaths"] == deaths
    counted = {name: status["ledger"][name] for name in ("failed", "deadline", "cancelled", "lost", "in_flight")}
    assert counted == {"failed": 0, "deadline": 0, "cancelled": 0, "lost": 0, "in_flight": 1, **ledger}
    assert state_of(pool, bystander.pid) == "busy"
    bystander.look()


def needs_group() -> None:
    refusal = cgroup.parents()[1]
    if refusal:
        pytest.skip(f"needs the layer cgroup: {refusal}")


SCRATCH = Sandbox("default", scratch="4 MiB")
DEATHS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "cpu_limit": ("spin", None, {"limits": Limits(cpu_time=1)}),
    "process_limit": ("fork_on", None, {}),
    "file_size": ("write_past_the_limit", 1 << 20, {"limits": Limits(file_size="64 KiB"), "sandbox": SCRATCH}),
    "output_limit": ("shout", 10_000, {"limits": Limits(output="64 KiB")}),
    "seccomp": ("call_by_x32", None, {}),
    "signal:SIGSEGV": ("die_by", int(signal.SIGSEGV), {}),
    "signal:SIGABRT": ("die_by", int(signal.SIGABRT), {}),
    "exit:3": ("die_by", 3, {}),
    "exit:0": ("die_by", 0, {}),
    "protocol": ("raw_channel", b"\0\0\0\0", {}),
    "oom": ("hoard", None, {"limits": Limits(memory="128 MiB")}),
}


@pytest.mark.parametrize("reason", DEATHS)
def test_a_death_has_the_reason_of_its_act_and_costs_one_call(reason: str) -> None:
    if reason == "oom":
        needs_group()
    if reason == "seccomp" and platform.machine() != "x86_64":
        pytest.skip("needs the x32 numbers of x86_64, which the layer seccomp ends")
    method, body, options = DEATHS[reason]
    with Pool(SCRIPT, workers=2, **options) as pool, Bystander(pool) as bystander:
        error = lose(lambda: pool.call(method, body), bystander)
        assert isinstance(error, WorkerLost) and error.reason == reason and error.may_have_run, error
        check(pool, bystander, {reason: 1}, lost=1)


def test_a_deadline_is_a_death_of_its_own_code() -> None:
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander:
        error = lose(lambda: pool.call("spin", timeout=0.2), bystander)
        assert isinstance(error, DeadlineExceeded)
        check(pool, bystander, {"deadline": 1}, deadline=1)


def test_a_kill_by_somebody_else_is_not_taken_for_ours() -> None:
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander:
        with ThreadPoolExecutor(1) as executor:
            lost = executor.submit(pool.call, "spin")
            bystander.look_until(lambda: state_of(pool, bystander.victim) == "busy")
            os.kill(bystander.victim, signal.SIGKILL)
            bystander.look_until(lost.done)
        error = lost.exception()
        assert isinstance(error, WorkerLost) and error.reason == "signal:SIGKILL"
        check(pool, bystander, {"signal:SIGKILL": 1}, lost=1)


def test_an_idle_worker_that_is_killed_costs_no_call() -> None:
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander:
        os.kill(bystander.victim, signal.SIGKILL)
        bystander.look_until(lambda: pool.status()["deaths"])
        check(pool, bystander, {"signal:SIGKILL": 1})


def test_code_that_runs_on_after_its_caller_left_is_ended() -> None:
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander:
        parts = pool.stream("one_and_no_end")
        assert next(parts) == 1
        parts.close()
        bystander.look_until(lambda: pool.status()["deaths"])
        check(pool, bystander, {"cancelled": 1}, cancelled=1)


def test_memory_without_a_group_is_an_exception_and_no_death() -> None:
    options = {"limits": Limits(memory="256 MiB"), "sandbox": Sandbox(layers={"cgroup": "off"})}
    with Pool(SCRIPT, workers=2, **options) as pool, Bystander(pool) as bystander:
        error = lose(lambda: pool.call("hoard"), bystander)
        assert isinstance(error, ResourceExhausted) and error.bound == "memory"
        assert state_of(pool, bystander.victim) == "idle"
        check(pool, bystander, {}, failed=1)


def test_a_worker_that_ignores_the_cpu_signal_is_ended_a_second_later() -> None:
    with Pool(SCRIPT, workers=2, limits=Limits(cpu_time=1)) as pool, Bystander(pool) as bystander:
        error = lose(lambda: pool.call("burn_on"), bystander)
        assert isinstance(error, WorkerLost) and error.reason in ("cpu_limit", "signal:SIGKILL"), error
        check(pool, bystander, {error.reason: 1}, lost=1)


def test_a_call_in_flight_at_the_end_of_the_pool_is_lost_to_the_shutdown() -> None:
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander, ThreadPoolExecutor(1) as executor:
        lost = executor.submit(pool.call, "spin")
        bystander.look_until(lambda: state_of(pool, bystander.victim) == "busy")
        bystander.leave()
        pool.close()
        error = lost.exception()
        assert isinstance(error, WorkerLost) and error.reason == "shutdown"
        assert pool.status()["deaths"] == {} and pool.status()["ledger"]["in_flight"] == 0


UNATTESTED = ("descriptor", "hang_up", "silence")  # the third fork has one too many, or never says that it is ready


def replaced_by(act: str, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool whose next replacement of a worker does not attest."""
    monkeypatch.setattr(children, "START_SECONDS", 0.5)
    return Pool(SCRIPT, workers=2, env={"AT_FORK": f"{act}:3"})


@pytest.mark.parametrize("act", UNATTESTED)
def test_a_worker_that_does_not_attest_is_counted_as_policy(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaced_by(act, monkeypatch) as pool, Bystander(pool) as bystander:
        error = lose(lambda: pool.call("die_by", 3), bystander)
        assert isinstance(error, WorkerLost) and error.reason == "exit:3"
        check(pool, bystander, {"exit:3": 1, "policy": 1}, lost=1)


@pytest.mark.parametrize("act", UNATTESTED)
def test_a_worker_that_does_not_attest_is_ended(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaced_by(act, monkeypatch) as pool, Bystander(pool) as bystander:
        lose(lambda: pool.call("die_by", 3), bystander)
        assert pool.call("echo", 1) == 1
        zygote = pool.status()["zygotes"][0]
        alive = {int(pid) for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text(encoding="ascii").split()}
        assert alive == {worker["pid"] for worker in pool.status()["workers"]}


def test_a_stream_that_is_left_after_its_workers_death_keeps_no_descriptor() -> None:
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander:
        descriptors = len(os.listdir("/proc/self/fd"))
        parts = pool.stream("numbers", 1 << 40)
        assert next(parts) == 0
        os.kill(bystander.victim, signal.SIGKILL)
        bystander.look_until(lambda: pool.status()["deaths"])
        parts.close()
        assert pool.call("echo", 1) == 1
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_kill_does_not_use_a_descriptor_that_was_closed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group is killed by two signals; the caller's thread must not send the second one to a number that is free again."""
    kill = children.pidfd.kill
    with Pool(SCRIPT, workers=2) as pool, Bystander(pool) as bystander:

        def twice(fd: int, *, group: bool = False) -> None:
            worker = next((w for w in pool._core.supervisor._workers if w.pidfd == fd), None)
            kill(fd, group=group)
            if worker is not None:
                worker.finished.wait(1)  # until the supervision thread has closed the pidfd, if it may meanwhile
                kill(fd, group=group)

        monkeypatch.setattr(children.pidfd, "kill", twice)
        error = lose(lambda: pool.call("raw_channel", b"\0\0\0\0"), bystander)
        assert isinstance(error, WorkerLost) and error.reason == "protocol"
        check(pool, bystander, {"protocol": 1}, lost=1)


LEAVING = """
import os, signal, time
from pyproc_worker import expose

@expose
def leave(half: bool):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        if half:
            os.write(3, (1 << 20).to_bytes(4, "big"))
        os.write(told, b"1")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("half", [False, True], ids=["nothing said", "half a frame said"])
def test_a_child_that_a_worker_leaves_holds_nobody_up_and_ends(half: bool, tmp_path: Path) -> None:
    """It holds the worker's ends of its channel; no pid namespace and no group is there to end it."""
    script = tmp_path / "leaving.py"
    script.write_text(LEAVING)
    sandbox = Sandbox("default", layers={"pid_namespace": "off", "cgroup": "off"})
    with Pool(script, sandbox=sandbox, limits=Limits(processes=4)) as pool:
        with pytest.raises(WorkerLost) as caught:
            pool.call("leave", half, timeout=20)
        assert caught.value.reason == "signal:SIGKILL"


AT_IMPORT = {  # what the script does -> (limits, what the refusal says)
    "import os; os.abort()": ({}, r"signal:SIG(ABRT|SEGV) .*run it alone"),
    "import os; os._exit(4)": ({}, r"exit:4 \(exit status 4\)"),
    "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)": ({}, r"seccomp \(SIGSYS\).*profile default"),
    "while True: pass": ({"cpu_time": "1 s"}, r"(cpu_limit|signal:SIGKILL) .*limits\.cpu_time"),
}


@pytest.mark.parametrize("line", AT_IMPORT)
def test_a_script_that_dies_while_it_is_loaded_is_named_with_the_reason(line: str, tmp_path: Path) -> None:
    limits, says = AT_IMPORT[line]
    if "0x40000000" in line and platform.machine() != "x86_64":
        pytest.skip("only x86_64 has a second ABI of that kind")
    script = tmp_path / "dies.py"
    script.write_text(line + "\n")
    with pytest.raises(ConfigError, match=f"dies.py' ended its process while it was loaded: {says}"):
        Pool(script, limits=Limits(**limits))


def test_an_import_that_eats_memory_is_refused_with_the_limit(tmp_path: Path) -> None:
    script = tmp_path / "eats.py"
    script.write_text("kept = [bytearray(8 << 20) for _ in range(100)]\n")
    with pytest.raises(ConfigError, match=r"oom .*limits\.memory|MemoryError"):
        Pool(script, limits=Limits(memory="128 MiB"))


@pytest.mark.parametrize(("text", "says"), [
    ("x = 1\ndef f(:\n", r"SyntaxError: invalid syntax \(line 2\)"),
    ("x = 1\n\nimport missing_module\n", r"ModuleNotFoundError: .* \(line 3\)"),
    ("def f():\n    raise ValueError('no')\n\nf()\n", r"ValueError: no \(line 2\)"),
])  # fmt: skip
def test_an_import_that_fails_says_in_which_line(text: str, says: str, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(text)
    with pytest.raises(ConfigError, match=says):
        Pool(script)


def test_a_byte_order_mark_is_no_syntax_error(tmp_path: Path) -> None:
    script = tmp_path / "marked.py"
    script.write_bytes(b"\xef\xbb\xbffrom pyproc_worker import expose\n\n@expose\ndef one() -> int:\n    return 1\n")
    with Pool(script) as pool:
        assert pool.call("one") == 1
    script.write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"not UTF-8.*save it as UTF-8"):
        Pool(script)


def test_the_end_of_a_zygote_is_one_death_however_many_workers_it_takes_along() -> None:
    with Pool(SCRIPT, workers=8) as pool:
        for _ in range(3):
            while len([worker for worker in pool.status()["workers"] if worker["state"] == "idle"]) < 8:
                assert pool._core.closed is None, pool._core.closed  # not `Unavailable` for the period
            [zygote] = pool.status()["zygotes"]
            os.kill(zygote, signal.SIGKILL)
            while pool.status()["zygotes"] in ([], [zygote]):
                assert pool._core.closed is None, pool._core.closed
        assert pool.call("echo", 1) == 1
