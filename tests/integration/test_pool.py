"""A pool as its user sees it: values, errors, deaths, limits, isolation; each in the full strict sandbox."""

from __future__ import annotations

import asyncio
import datetime
import glob
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest

from pyproc import (
    AsyncPool,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    FunctionFailed,
    InternalError,
    InvalidArgument,
    Limits,
    NotFound,
    PayloadTooLarge,
    Pool,
    PyprocError,
    ResourceExhausted,
    Sandbox,
    WorkerLost,
)
from pyproc.host import cgroup, procfs
from pyproc_wire.codec import MESSAGEPACK

pytestmark = pytest.mark.unprivileged


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The module's pool replaces workers while tests run; test_nothing_is_left_behind counts for a whole pool instead."""


def groups_of(pid: int) -> list[pathlib.Path]:
    """The control groups of the pools of process `pid`; glob, as pathlib's fails when a folder vanishes meanwhile."""
    places = [f"/sys/fs/cgroup/{base}/**/pyproc-*-{pid}-*-*" for base in ("memory", "pids")]
    return [pathlib.Path(found) for place in places for found in glob.glob(place, recursive=True)]


@pytest.fixture
def script() -> pathlib.Path:
    return pathlib.Path(__file__).with_name("subject.py")


@pytest.mark.parametrize("value", [
    None, True, -(2**63), 2**64 - 1, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": 1}}, (1, 2), {1, 2},
    datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5, 6), datetime.timedelta(1, 2, 3), 1 + 2j,
])  # fmt: skip
def test_each_value_arrives_as_what_it_was(pool: Pool, value: object) -> None:
    assert pool.call("echo", value) == value
    assert type(pool.call("echo", value)) is type(value)


def test_arrays_arrive_as_arrays(pool: Pool) -> None:
    array = np.arange(12, dtype="float32").reshape(3, 4)
    back = pool.call("echo", array)
    assert back.dtype == array.dtype and (back == array).all()


@pytest.mark.parametrize("value", [np.float32(1.5), np.arange(100.0)], ids=["brief", "long"])
def test_an_array_where_there_is_no_numpy_is_an_error_of_that_call(pool: Pool, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    body = msgspec.Raw(MESSAGEPACK.encode_value(value))
    before = pool.status()["ledger"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "numpy", None)
        with pytest.raises(InternalError, match="install numpy"):
            pool.call("echo", body)
        with pytest.raises(InternalError, match="install numpy"):
            list(pool.stream("echo", body))
    after = pool.status()["ledger"]
    assert after["failed"] == before["failed"] + 2 and after["in_flight"] == 0
    assert {worker["state"] for worker in pool.status()["workers"]} == {"idle"}


def test_an_interrupted_call_is_cancelled_and_the_next_one_served(pool: Pool) -> None:
    before = pool.status()["ledger"]

    def interrupt() -> None:
        while all(worker["state"] != "busy" for worker in pool.status()["workers"]):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        pool.call("nap", 60.0)
    watcher.join()
    assert pool.call("echo", 1) == 1
    after = pool.status()["ledger"]
    assert (after["cancelled"], after["ok"], after["in_flight"]) == (before["cancelled"] + 1, before["ok"] + 1, 0)


def test_typed_bodies_are_checked_with_their_path(pool: Pool) -> None:
    assert pool.call("area", {"width": 3.0}) == 6.0
    with pytest.raises(InvalidArgument) as caught:
        pool.call("area", {"width": "3"})
    assert caught.value.path == "$.width"
    for body in ({}, {"width": 1.0, "depth": 2.0}, [1.0]):
        with pytest.raises(InvalidArgument):
            pool.call("area", body)


def test_unknown_method_is_not_found(pool: Pool) -> None:
    with pytest.raises(NotFound, match="echo"):
        pool.call("__import__", 1)


def test_unsendable_body_is_refused_with_its_path(pool: Pool) -> None:
    with pytest.raises(InvalidArgument) as caught:
        pool.call("echo", {"a": [object()]})
    assert caught.value.path == "$.a[0]"
    assert pool.call("echo", 1) == 1


def test_a_secret_stays_out_of_what_the_caller_sees(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "pyproc"), pytest.raises(FunctionFailed) as caught:
        pool.call("hide_secret", "hunter2")
    error = caught.value
    assert error.message == "Processing failed"
    assert "hunter2" not in repr(error) + str(error.__dict__) + str(error.__cause__) + str(error.__context__)
    assert error.error_id is not None and error.error_id in caplog.text and "hunter2" in caplog.text


def test_public_error_text_reaches_the_caller(pool: Pool) -> None:
    with pytest.raises(FunctionFailed, match="try again"):
        pool.call("public", "try again")


@pytest.mark.parametrize(("number", "reason"), [
    (signal.SIGABRT, "signal:SIGABRT"), (signal.SIGSEGV, "signal:SIGSEGV"), (3, "exit:3"),
])  # fmt: skip
def test_a_death_is_typed_and_costs_one_call(pool: Pool, number: int, reason: str) -> None:
    with pytest.raises(WorkerLost) as caught:
        pool.call("die_by", int(number))
    assert caught.value.reason == reason and caught.value.may_have_run
    assert pool.call("echo", 5) == 5


def test_a_late_call_is_killed_and_the_next_is_served(pool: Pool) -> None:
    with pytest.raises(DeadlineExceeded):
        pool.call("spin", timeout=0.2)
    with pytest.raises(DeadlineExceeded):
        pool.call("impatient")
    assert pool.call("echo", 5) == 5


def test_eating_memory_is_typed(pool: Pool) -> None:
    with pytest.raises((WorkerLost, ResourceExhausted)) as caught:
        pool.call("hoard", timeout=20)
    assert caught.value.reason == "oom" or caught.value.bound == "memory"
    assert pool.call("echo", 5) == 5


def test_output_beyond_its_limit_ends_the_worker(script: pathlib.Path) -> None:
    with Pool(script, limits=Limits(output="64 KiB")) as pool:
        assert pool.call("shout", 2) == 2
        with pytest.raises(WorkerLost) as caught:
            pool.call("shout", 10_000)
        assert caught.value.reason == "output_limit"
        assert pool.call("echo", 1) == 1


def test_output_is_put_to_its_call(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pyproc"):
        pool.call("say", "good morning")
        pool.call("echo", 1)
        deadline = time.monotonic() + 5
        while "good morning" not in caplog.text and time.monotonic() < deadline:
            pool.status()
    assert "stream=stdout text=good morning" in caplog.text


def test_import_time_attacks_are_stopped(pool: Pool) -> None:
    met = pool.call("at_import")
    assert len(met) >= 14
    assert [name for name, outcome in met.items() if not outcome.startswith("stopped")] == []


def test_attacks_in_a_call_are_stopped(pool: Pool) -> None:
    for name in pool.call("at_import"):
        assert pool.call("attack", name).startswith("stopped"), name


def test_streams_generators_and_async(pool: Pool) -> None:
    assert list(pool.stream("numbers", 100)) == list(range(100))
    assert pool.call("numbers", 3) == [0, 1, 2]
    assert pool.call("later", 1) == 2
    parts = pool.stream("numbers", 100_000)
    assert next(parts) == 0
    parts.close()
    assert pool.call("echo", 1) == 1
    assert list(pool.map("echo", range(50))) == list(range(50))
    assert pool.submit("echo", 7).result(10) == 7


def test_environment_is_explicit(script: pathlib.Path) -> None:
    with Pool(script, env={"MODEL": "a b", "TMPDIR": "/elsewhere"}) as pool:
        _pid, method, environment = pool.call("who")
    assert method == "who"
    assert (environment.pop("MODEL"), environment.pop("TMPDIR")) == ("a b", "/elsewhere")
    assert not set(environment) - {"HOME", "LC_CTYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}


def test_workers_draw_different_random_numbers(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call") as pool:
        assert len({pool.call("draw") for _ in range(4)}) == 4


def test_isolation_call_never_reuses_a_process(script: pathlib.Path) -> None:
    with Pool(script, workers=2, isolation="call") as pool:
        pids = [pool.call("who")[0] for _ in range(10)]
        assert len(set(pids)) == 10
        assert pool.status()["deaths"] == {}


SHARED = {
    "a file": ("kept = open(os.__file__)", "os.__file__ and str(kept.seek(9))"),
    "a file that is mapped": ("kept = mmap.mmap(os.open(os.__file__, os.O_RDONLY), 100, prot=mmap.PROT_READ)", "str(kept[0])"),
    "memory": ("kept = mmap.mmap(-1, 4096)", "str(kept.write(b'secret'))"),
}


@pytest.mark.parametrize("kept", SHARED)
def test_isolation_call_takes_no_import_that_leaves_something_to_share(tmp_path: pathlib.Path, kept: str) -> None:
    made, used = SHARED[kept]
    script = tmp_path / "keeps.py"
    script.write_text(f"import mmap, os\nfrom pyproc_worker import expose\n{made}\n@expose\ndef use() -> str:\n    return {used}\n")
    with pytest.raises(ConfigError, match=r'what its calls would share .* isolation is "call"'):
        Pool(script, isolation="call")
    with Pool(script) as pool:
        assert pool.call("use").isdigit()
    with Pool(script, isolation="call", zygote=False) as pool:
        assert pool.call("use").isdigit()


def test_recycling_loses_no_call(script: pathlib.Path) -> None:
    with Pool(script, workers=1, max_requests=3) as pool:
        assert [pool.call("echo", n) for n in range(20)] == list(range(20))


def test_a_full_queue_sheds(script: pathlib.Path) -> None:
    with Pool(script, workers=1, queue=0) as pool:
        busy = pool.submit("nap", 1.0)
        while not pool.status()["ledger"]["in_flight"]:
            pass
        with pytest.raises(ResourceExhausted) as caught:
            pool.call("echo", 1)
        assert caught.value.bound == "queue" and caught.value.retry_after
        assert busy.result(10) == 1.0


def test_oversize_request_and_result(script: pathlib.Path) -> None:
    with Pool(script, limits=Limits(request="1 KiB", response="1 KiB")) as pool:
        with pytest.raises(PayloadTooLarge):
            pool.call("echo", "x" * 2000)
        with pytest.raises(PayloadTooLarge):
            pool.call("numbers", 2000)
        assert pool.call("echo", 1) == 1


# Runs apart from the module's pool, whose replacements come and go while descriptors are counted.
LEAVES_NOTHING = """
import glob, os, sys
from pyproc import DeadlineExceeded, Pool, WorkerLost

def left():
    groups = [g for base in ("memory", "pids")
              for g in glob.glob(f"/sys/fs/cgroup/{base}/**/pyproc-*-{os.getpid()}-*-*", recursive=True)]
    return len(os.listdir("/proc/self/fd")), len(groups), open(f"/proc/self/task/{os.getpid()}/children").read()

Pool(sys.argv[1]).close()
before = left()
for isolation in ("worker", "call"):
    pool = Pool(sys.argv[1], workers=3, isolation=isolation)
    assert pool.call("echo", 1) == 1
    for method, body, timeout, error in (("die_by", 3, None, WorkerLost), ("spin", None, 0.1, DeadlineExceeded)):
        try:
            pool.call(method, body, timeout=timeout)
        except error:
            continue
        raise SystemExit(f"{method} returned")
    zygotes = pool.status()["zygotes"]
    pool.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in zygotes)
print(before == left(), before, left())
"""


def test_nothing_is_left_behind(script: pathlib.Path) -> None:
    run = subprocess.run([sys.executable, "-c", LEAVES_NOTHING, str(script)], capture_output=True, text=True, timeout=50)
    assert run.stdout.startswith("True"), run.stdout + run.stderr


def test_nothing_is_left_when_the_application_is_killed(script: pathlib.Path) -> None:
    code = ("import sys; from pyproc import Pool; p = Pool(sys.argv[1], workers=2); s = p.status();"
            "print(*s['zygotes'], *(w['pid'] for w in s['workers']), flush=True); sys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", code, str(script)], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    watched = [os.pidfd_open(pid) for pid in pids]
    assert bool(groups_of(process.pid)) == bool(cgroup.parents()[0]), "the pattern must find what a pool makes"
    process.kill()
    process.wait()
    import select

    for fd in watched:
        assert select.select([fd], [], [], 10)[0], "a process of the pool outlived its application"
        os.close(fd)
    process.stdout.close()
    process.stdin.close()
    groups = groups_of(process.pid)
    deadline = time.monotonic() + 5
    while any(p.exists() for p in groups) and time.monotonic() < deadline:
        pass
    left = {str(p): sorted(f.read_text() for f in p.glob("**/cgroup.procs")) for p in groups if p.exists()}
    assert left == {}


def test_use_after_fork_is_refused_and_descriptors_are_closed(pool: Pool) -> None:
    def held() -> set[str]:
        """Pipes, sockets, pidfds and groups that this process has open, without the listing itself."""
        return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}

    reader, writer = os.pipe()
    worker = next(iter(pool._core.supervisor._population.workers))
    of_pool = {os.readlink(f"/proc/self/fd/{fd}") for fd in (worker.channel.requests, worker.channel.answers)}
    assert of_pool <= held()
    child = os.fork()
    if child == 0:
        try:
            assert not of_pool & held()
            pool.call("echo", 1)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)  # whatever came: a second pytest that runs on in the child would wait for threads that it has not
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    assert text.startswith("PyprocError") and "after a fork" in text
    assert pool.call("echo", 1) == 1


def test_a_pool_made_in_a_thread_that_ends(script: pathlib.Path) -> None:
    made: list[Pool] = []
    thread = threading.Thread(target=lambda: made.append(Pool(script)))
    thread.start()
    thread.join()
    with made[0] as pool:
        assert pool.call("echo", 1) == 1


def test_ignored_sigchld(script: pathlib.Path) -> None:
    code = ("import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); from pyproc import Pool, WorkerLost\n"
            "with Pool(sys.argv[1]) as p:\n"
            "    try: p.call('die_by', 3)\n"
            "    except WorkerLost as e: print(e.reason, p.call('echo', 1))")
    run = subprocess.run([sys.executable, "-c", code, str(script)], capture_output=True, text=True, timeout=50)
    assert run.stdout.split() == ["exit:3", "1"], run.stderr


def test_cancelled_async_call_frees_its_worker(script: pathlib.Path) -> None:
    async def main() -> None:
        async with AsyncPool(script, workers=1) as pool:
            assert await pool.call("echo", 1) == 1
            task = asyncio.create_task(pool.call("patient"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await pool.call("echo", 2) == 2
            assert await asyncio.gather(*(pool.call("echo", n) for n in range(50))) == list(range(50))
            assert [part async for part in pool.stream("numbers", 40)] == list(range(40))
            with pytest.raises(DeadlineExceeded):
                await pool.call("spin", timeout=0.2)
            assert await pool.call("echo", 3) == 3

    asyncio.run(main())


def test_killed_workers_cost_exactly_their_calls(script: pathlib.Path) -> None:
    rounds = int(os.environ.get("PYPROC_SOAK", "40"))
    with Pool(script, workers=2) as pool:
        pool._core.supervisor._ends.restart.intensity = rounds * 2
        pool._core.supervisor._ends.restart._deaths = type(pool._core.supervisor._ends.restart._deaths)(maxlen=rounds * 2 + 1)
        lost, wrong, stop = [], [], threading.Event()

        def caller() -> None:
            while not stop.is_set():
                try:
                    if pool.call("echo", 1) != 1:
                        wrong.append("value")
                except WorkerLost as error:
                    lost.append(error.reason)

        threads = [threading.Thread(target=caller) for _ in range(3)]
        for thread in threads:
            thread.start()
        killed = 0
        while killed < rounds:
            workers = pool.status()["workers"]
            if workers:
                try:
                    os.kill(random.choice(workers)["pid"], signal.SIGKILL)
                    killed += 1
                except (ProcessLookupError, PermissionError):
                    continue
            threading.Event().wait(random.random() * 0.02)
        stop.set()
        for thread in threads:
            thread.join(30)
        ledger = pool.status()["ledger"]
        assert not wrong and set(lost) <= {"signal:SIGKILL"} and len(lost) <= killed
        assert ledger["in_flight"] == 0 and ledger["lost"] == len(lost)
        assert pool.call("echo", 1) == 1


@pytest.mark.parametrize("options", [
    {"workers": 0}, {"workers": True}, {"isolation": "tenant"}, {"isolation": "x"}, {"queue": -1}, {"timeout": "5 lightyears"},
    {"timeout": -1}, {"env": {"A": 1}}, {"concurrency": 2}, {"prefetch": 4}, {"prefetch": 257}, {"python": "/no/such/python"},
    {"sandbox": Sandbox("no-such-profile.json")}, {"sandbox": Sandbox(read=["/no/such/folder"])},
])  # fmt: skip
def test_bad_options_name_value_and_remedy(script: pathlib.Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Pool(script, **options)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize(("value", "isolation", "cores", "told"), [
    ("50 us", "worker", 1, "1 core"), ("50 us", "call", 2, "isolation call"), ("20 ms", "worker", 2, "at most 0.01 s"),
    (-1, "worker", 2, "above 0"), ("50", "worker", 2, "units"),
])  # fmt: skip
def test_busy_polling_is_refused_where_an_end_has_no_core_or_nothing_to_poll_for(
    script: pathlib.Path, monkeypatch: pytest.MonkeyPatch, value: object, isolation: str, cores: int, told: str,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    with pytest.raises(ConfigError, match=told) as caught:
        Pool(script, isolation=isolation, busy_polling=value)
    assert "busy_polling" in str(caught.value)


def test_calls_are_answered_with_busy_polling(script: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with Pool(script, busy_polling="100 us") as pool:
        assert [pool.call("echo", number) for number in range(200)] == list(range(200))


def test_a_replaced_worker_runs_the_script_as_it_was(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("from pyproc_worker import expose\n@expose\ndef answer(body):\n    return 'as it was'\n")
    with Pool(script, max_requests=1) as pool:
        assert pool.call("answer") == "as it was"
        script.write_text("raise SystemExit")
        assert pool.call("answer") == "as it was"
        script.unlink()
        assert pool.call("answer") == "as it was"


def test_bad_scripts_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Pool(tmp_path / "none.py")
    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        Pool(bad)
    forked = tmp_path / "forked.py"
    forked.write_text("import os, time\nif os.fork() == 0:\n    time.sleep(60)\n")
    with pytest.raises(ConfigError, match="processes running"):
        Pool(forked, sandbox=Sandbox("default"))
    with pytest.raises(ConfigError, match="PermissionError"):
        Pool(forked)
    threaded = tmp_path / "threaded.py"
    threaded.write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
                        "from pyproc_worker import expose\n@expose\ndef one(): return 1\n")
    with pytest.raises(ConfigError, match="threads"):
        Pool(threaded)
    with Pool(threaded, zygote=False, workers=2) as pool:
        assert pool.call("one") == 1


def test_cancelled_type_is_public() -> None:
    assert issubclass(Cancelled, PyprocError)


def test_profile_default_writes_in_its_scratch_only(script: pathlib.Path) -> None:
    with Pool(script, sandbox=Sandbox("default", scratch="1 MiB"), workers=2) as pool:
        met = {name: pool.call("attack", name) for name in ("passwd", "setuid", "seccomp", "unshare", "dumpable", "vsock", "exec")}
        assert all(outcome.startswith("stopped") for outcome in met.values()), met
        assert pool.call("attack", "write").startswith("ESCAPED")
        with pytest.raises(ResourceExhausted) as caught:
            pool.call("fill_scratch")
        assert caught.value.bound == "scratch"
        assert pool.call("echo", 1) == 1


def test_cpus_is_set_in_the_workers_group(script: pathlib.Path) -> None:
    if "cpu" not in cgroup.parents(also=("cpu",))[0]:
        with pytest.raises(PyprocError, match="cpu"):
            Pool(script, limits=Limits(cpus=0.5))
        return
    with Pool(script, limits=Limits(cpus=0.5)) as pool:
        assert pool.call("echo", 1) == 1
        group = "/sys/fs/cgroup/cpu" + procfs.cgroups(pool.status()["workers"][0]["pid"])["cpu"]
        quota, period = (int(pathlib.Path(group, f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        assert quota / period == 0.5


@pytest.mark.parametrize("profile", ["strict", "default"])
def test_a_start_is_rehearsed_under_every_profile(profile: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the sandbox refuses the rehearsal would only show as slower starts."""
    script = tmp_path / "worker.py"
    script.write_text("from pyproc_worker import expose\nprint('loaded')\n@expose\ndef one():\n    return 1\n")
    with caplog.at_level(logging.DEBUG, "pyproc"), Pool(script, sandbox=Sandbox(profile)) as pool:
        assert pool.call("one") == 1
    assert "loaded" in caplog.text and "rehearsed" not in caplog.text
