"""A pool as its user sees it: values, errors, deaths, limits, isolation; each in the full strict sandbox."""

from __future__ import annotations

import asyncio
import dataclasses
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
from collections.abc import Callable, Iterator
from typing import Any

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
    Unavailable,
    WorkerLost,
)
from pyproc.host import cgroup
from pyproc.supervisor.death import Death
from pyproc.supervisor.state import Worker
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


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(pathlib.Path(__file__).with_name("subject.py"), workers=2, limits=Limits(memory="512 MiB")) as made:
        yield made


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


def test_environment_is_explicit(pool: Pool) -> None:
    _pid, method, environment = pool.call("who")
    assert method == "who"
    assert not set(environment) - {"HOME", "TMPDIR", "LC_CTYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}


def test_workers_draw_different_random_numbers(script: pathlib.Path) -> None:
    with Pool(script, workers=1, isolation="call") as pool:
        assert len({pool.call("draw") for _ in range(4)}) == 4


def test_isolation_call_never_reuses_a_process(script: pathlib.Path) -> None:
    with Pool(script, workers=2, isolation="call") as pool:
        pids = [pool.call("who")[0] for _ in range(10)]
        assert len(set(pids)) == 10
        assert pool.status()["deaths"] == {}


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
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
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
        pool._core.supervisor._restart.intensity = rounds * 2
        pool._core.supervisor._restart._deaths = type(pool._core.supervisor._restart._deaths)(maxlen=rounds * 2 + 1)
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
    {"timeout": -1}, {"env": {"A": 1}}, {"concurrency": 2}, {"prefetch": 4}, {"python": "/no/such/python"},
    {"sandbox": Sandbox("no-such-profile.json")}, {"sandbox": Sandbox(read=["/no/such/folder"])},
])  # fmt: skip
def test_bad_options_name_value_and_remedy(script: pathlib.Path, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Pool(script, **options)
    assert len(str(caught.value)) > 20


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
        quotas = glob.glob(f"/sys/fs/cgroup/cpu/**/pyproc-*-{os.getpid()}-*-*/w*/cpu.cfs_quota_us", recursive=True)
        periods = [q.replace("quota", "period") for q in quotas]
        pairs = zip(quotas, periods, strict=True)
        assert [int(pathlib.Path(q).read_text()) / int(pathlib.Path(p).read_text()) for q, p in pairs] == [0.5]


def test_modules_beside_the_script_are_importable_where_its_folder_is_listed(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "project" / "workers"
    folder.mkdir(parents=True)
    (folder / "beside.py").write_text("ANSWER = 42\n")
    script = folder / "worker.py"
    script.write_text("import beside\nfrom pyproc_worker import expose\n\n\n@expose\ndef answer() -> int:\n    return beside.ANSWER\n")
    for listed in (folder, folder.parent):
        with Pool(script, sandbox=Sandbox(read=[listed])) as pool:
            assert pool.call("answer") == 42
    for others in ([], [folder / "beside.py"]):
        with pytest.raises(ConfigError, match="No module named 'beside'"):
            Pool(script, sandbox=Sandbox(read=others))


def test_closing_a_stream_whose_end_has_come_costs_no_worker(pool: Pool) -> None:
    deaths = pool.status()["deaths"]
    for _ in range(60):
        stream = pool.stream("numbers", 1)
        assert next(stream) == 0
        stream.close()
    assert pool.call("echo", 1) == 1
    assert pool.status()["deaths"] == deaths


def test_a_call_that_is_cancelled_while_its_death_is_looked_into_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose() -> dict[str, int]:
        async with AsyncPool(pathlib.Path(__file__).with_name("subject.py")) as pool:
            supervisor, looking, go_on = pool._core.supervisor, threading.Event(), threading.Event()
            autopsy = supervisor.autopsy

            def slow(worker: Worker) -> Death:
                looking.set()
                go_on.wait(10)
                return autopsy(worker)

            monkeypatch.setattr(supervisor, "autopsy", slow)
            call = asyncio.ensure_future(pool.call("die_by", int(signal.SIGKILL)))
            await asyncio.to_thread(looking.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            go_on.set()
            while pool.status()["ledger"]["in_flight"] > 0:
                await asyncio.sleep(0)
            return pool.status()["ledger"]

    ledger = asyncio.run(lose())
    assert (ledger["accepted"], ledger["lost"], ledger["cancelled"], ledger["in_flight"]) == (1, 1, 0, 0)


def test_closing_an_asyncio_pool_in_a_forked_child_touches_nothing() -> None:
    async def share() -> None:
        async with AsyncPool(pathlib.Path(__file__).with_name("subject.py")) as pool:
            child = os.fork()
            if child == 0:
                try:
                    pool._core.close(0.0)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert await pool.call("echo", 1) == 1

    asyncio.run(share())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"nope": 1}, "'nope'.*options are workers, isolation"),
    ({"sandbox": "strict"}, "sandbox is 'strict'.*Sandbox"),
    ({"limits": Limits}, "limits is <class.*Limits"),
    ({"limits": {}}, "limits is {}"),
    ({"zygote": "no"}, "zygote is 'no'"),
    ({"preload": "json"}, "preload is 'json'.*list"),
    ({"env": ["A"]}, r"env is \['A'\].*map"),
    ({"script": b"worker.py"}, "script is b'worker.py'"),
    ({"script": 1}, "script is 1"),
    ({"script": "a\0b"}, "null byte"),
]


@pytest.mark.parametrize(("options", "says"), WRONG, ids=str)
def test_a_wrong_option_is_named(options: dict[str, Any], says: str) -> None:
    script = options.pop("script", pathlib.Path(__file__).with_name("subject.py"))
    with pytest.raises(ConfigError, match=says):
        Pool(script, **options)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Sandbox(profile=1), "profile is 1"),  # type: ignore[arg-type]
    (lambda: Sandbox(layers="seccomp=off"), "layers is 'seccomp=off'"),  # type: ignore[arg-type]
    (lambda: Sandbox(read=None), "read is None"),  # type: ignore[arg-type]
    (lambda: Sandbox(read=[1]), "read names 1"),  # type: ignore[list-item]
    (lambda: Sandbox(read=[""]), "read names ''"),
    (lambda: Sandbox(read=["/"]), "read names '/'"),
    (lambda: Limits(cpus="x"), "cpus is 'x'"),  # type: ignore[arg-type]
    (lambda: Limits(cpus=float("inf")), "cpus is inf.*1024"),
])  # fmt: skip
def test_a_wrong_value_is_named(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_pool_that_nobody_holds_says_so_and_ends() -> None:
    pool = Pool(pathlib.Path(__file__).with_name("subject.py"))
    supervisor = pool._core.supervisor
    with pytest.warns(ResourceWarning, match="unclosed pool 'pool'"):
        del pool
    assert supervisor._ended.wait(10)


def test_a_closed_pool_refuses_every_call_alike() -> None:
    pool = Pool(pathlib.Path(__file__).with_name("subject.py"))
    pool.submit("echo", 1).result(10)
    pool.close()
    for use in (lambda: pool.call("echo", 1), lambda: pool.submit("echo", 1), lambda: list(pool.stream("echo", 1)),
                lambda: list(pool.map("echo", [1]))):
        with pytest.raises(Unavailable, match="closed"):
            use()


def test_isolation_call_holds_after_a_stream_that_was_closed() -> None:
    with Pool(pathlib.Path(__file__).with_name("subject.py"), isolation="call") as pool:
        for _ in range(4):
            stream = pool.stream("numbers", 100_000)
            assert next(stream) == 0
            stream.close()
            assert pool.call("health")["requests_handled"] == 1, "the process had served the stream"


@dataclasses.dataclass
class Unreadable:
    field: int = 0


@pytest.mark.parametrize("error", [KeyError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_body_that_cannot_be_read_costs_no_worker(pool: Pool, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> int:
        raise error

    body = Unreadable()
    monkeypatch.setattr(Unreadable, "field", property(fail))
    for _ in range(4):  # more than there are workers
        with pytest.raises(type(error)):
            pool.call("echo", body)
    assert pool.call("echo", 1, timeout=5) == 1
    assert pool.status()["ledger"]["in_flight"] == 0


@pytest.mark.parametrize("error", [TimeoutError("mine"), ValueError("mine")], ids=repr)
def test_what_a_signal_handler_raises_is_the_callers_and_cancels_the_call(pool: Pool, error: Exception) -> None:
    def ring(number: int, frame: object) -> None:
        raise error

    before, previous = pool.status(), signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(type(error), match="mine"):
            pool.call("patient")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert pool.call("echo", 1) == 1
    after = pool.status()
    assert after["deaths"].get("protocol") == before["deaths"].get("protocol")
    assert after["ledger"]["cancelled"] == before["ledger"]["cancelled"] + 1 and after["ledger"]["in_flight"] == 0


def test_what_a_consumer_throws_into_a_stream_is_not_the_workers_fault(pool: Pool) -> None:
    before = pool.status()["deaths"].get("protocol")
    stream = pool.stream("numbers", 3)
    assert next(stream) == 0
    with pytest.raises(OSError, match="mine"):
        stream.throw(OSError("mine"))
    assert pool.call("echo", 1) == 1
    assert pool.status()["deaths"].get("protocol") == before


def test_a_call_that_queues_as_the_pool_ends_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(pathlib.Path(__file__).with_name("subject.py"))
    core, enqueue = pool._core, pool._core.checkout.enqueue
    monkeypatch.setattr(core.checkout, "take", lambda: None)
    monkeypatch.setattr(core.checkout, "enqueue", lambda waiter: (pool.close(), enqueue(waiter)))
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        pool.call("echo", 1, timeout=20)
    assert time.monotonic() - begun < 15, "it waited for its deadline"


def test_a_start_that_is_cancelled_is_ended_by_close_and_two_starts_make_one_pool() -> None:
    async def start() -> None:
        pool = AsyncPool(pathlib.Path(__file__).with_name("subject.py"))
        first = asyncio.ensure_future(pool.start())
        await asyncio.sleep(0)  # it has begun
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await pool.close()
        other = AsyncPool(pathlib.Path(__file__).with_name("subject.py"))
        await asyncio.gather(other.start(), other.start())
        assert await other.call("echo", 1) == 1
        await other.close()

    def supervising() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "pyproc-supervision"}

    before = supervising()
    asyncio.run(start())
    assert supervising() == before


def test_no_call_begins_while_a_pool_is_closing_and_the_one_in_flight_is_answered() -> None:
    pool = Pool(pathlib.Path(__file__).with_name("subject.py"))
    running = pool.submit("nap", 1.0)
    while pool.status()["ledger"]["in_flight"] == 0:
        pass
    closer = threading.Thread(target=pool.close, args=(20.0,))
    closer.start()
    while pool._core.closed is None:
        pass
    with pytest.raises(Unavailable, match="closing"):
        pool.call("echo", 1)
    closer.join(10)
    assert not closer.is_alive() and running.result(0) == 1.0
