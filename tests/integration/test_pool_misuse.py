"""A pool that is used wrongly, left, interrupted, closed at a bad moment: nothing is lost, nobody is blamed for another."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyproc import (
    AsyncPool,
    ConfigError,
    DeadlineExceeded,
    Limits,
    Pool,
    Sandbox,
    Unavailable,
)
from pyproc.supervisor.death import Death
from pyproc.supervisor.state import Worker

SUBJECT = pathlib.Path(__file__).with_name("subject.py")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """As in test_pool: the module's pool replaces workers while tests run."""


@pytest.mark.unprivileged
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


def test_an_interrupt_while_a_death_is_looked_into_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(worker: Worker) -> Death:
        raise KeyboardInterrupt

    with Pool(pathlib.Path(__file__).with_name("subject.py")) as pool:
        with monkeypatch.context() as impatient:
            impatient.setattr(pool._core.supervisor, "autopsy", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.call("die_by", int(signal.SIGKILL))
        ledger = pool.status()["ledger"]
        assert (ledger["accepted"], ledger["cancelled"], ledger["in_flight"]) == (1, 1, 0)
        assert pool.call("echo", 1) == 1


def test_a_waiter_whose_loop_was_closed_costs_the_others_nothing() -> None:
    async def start() -> AsyncPool:
        pool = AsyncPool(pathlib.Path(__file__).with_name("subject.py"))
        await pool.start()
        return pool

    async def until_queued(pool: AsyncPool) -> None:
        while pool.status()["queued"] == 0:
            await asyncio.sleep(0)

    left = asyncio.new_event_loop()
    pool = left.run_until_complete(start())
    checkout = pool._core.checkout
    worker = checkout.take()
    assert worker is not None
    waiting = left.create_task(pool.call("echo", 1))
    left.run_until_complete(until_queued(pool))
    left.close()
    answers: list[int] = []
    other = threading.Thread(target=lambda: answers.append(asyncio.run(pool.call("echo", 2))))
    other.start()
    while pool.status()["queued"] < 2:
        pass
    checkout.give(worker)
    other.join(20)
    assert answers == [2]
    ledger = pool.status()["ledger"]
    assert (ledger["accepted"], ledger["ok"], ledger["cancelled"], ledger["in_flight"]) == (2, 1, 1, 0)
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    del waiting
    assert asyncio.run(pool.call("echo", 3)) == 3
    assert pool.status()["ledger"]["cancelled"] == 1
    asyncio.run(pool.close())


def test_a_worker_that_was_buried_first_is_not_condemned() -> None:
    with Pool(pathlib.Path(__file__).with_name("subject.py")) as pool:
        supervisor = pool._core.supervisor
        [worker] = supervisor._workers

        class Buried:
            """The lock of a worker whose death is told while another thread waits for it."""

            def __enter__(self) -> None:
                worker.death = Death("exit:3", "exit status 3")

            def __exit__(self, *error: object) -> None:
                worker.death = None

        holding, worker.holding = worker.holding, Buried()  # type: ignore[assignment]
        supervisor.condemn(worker, "deadline")
        worker.holding = holding
        assert worker.doomed is None
        assert pool.call("echo", 1) == 1


@pytest.mark.unprivileged
def test_a_layer_that_is_off_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    lax = Sandbox(layers={"mdwe": "off", "parent_death": "off"})
    with Pool(pathlib.Path(__file__).with_name("subject.py"), sandbox=lax, name="lax"):
        pass
    assert "layers_off pool=lax layers=parent_death,mdwe" in [record.getMessage() for record in caplog.records]


@pytest.mark.unprivileged
@pytest.mark.parametrize("way", ["itself", "below", "link"])
def test_the_machines_processes_are_never_shown(way: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    path = {"itself": "/proc", "below": "/proc/sys", "link": str(tmp_path / "link")}[way]
    with pytest.raises(ConfigError, match="shows every process"):
        Pool(pathlib.Path(__file__).with_name("subject.py"), sandbox=Sandbox(read=[path]))


LEAVES_A_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


@pytest.mark.unprivileged
@pytest.mark.parametrize(("source", "options", "told"), [
    (LEAVES_A_THREAD, {}, "{script!r} leaves 1 thread of its own running after its import, and threads do not survive a fork: start "
     "them in a function, or set the pool's option zygote to false: zygote=False, in pyproc.toml zygote = false"),
    ("", {"sandbox": Sandbox("default", scratch="1024 TiB")}, "sandbox.scratch is 1125899906842624 bytes, and it lies in memory"),
    ("", {"python": "/bin/false"}, "python is '/bin/false', which does not run Python: it ended with status 1; give the path"),
    ("", {"python": "/nowhere"}, "python is '/nowhere', which cannot be run: No such file or directory; give the path of a Python"),
    ("", {"python": "/bin/echo"}, "python is '/bin/echo', which does not answer as Python does; give the path of a Python interpreter"),
])  # fmt: skip
def test_what_cannot_start_is_named_with_the_remedy(tmp_path: pathlib.Path, source: str, options: dict[str, Any], told: str) -> None:
    script = tmp_path / "worker.py"
    script.write_text(source)
    with pytest.raises(ConfigError) as caught:
        Pool(script, **options)
    assert told.format(script=str(script)) in str(caught.value)


@pytest.mark.parametrize("grace", ["x", -1, True, float("nan"), None])
def test_a_wrong_grace_is_refused_and_the_pool_serves_on(pool: Pool, grace: Any) -> None:
    with pytest.raises(ConfigError, match="grace is"):
        pool.close(grace)
    assert pool.call("echo", 1) == 1


def test_a_closed_pool_cannot_be_entered_again(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "worker.py"
    script.touch()
    with Pool(script) as closed:
        pass
    with pytest.raises(Unavailable, match="the pool is closed; make another one"), closed:
        pass

    async def again() -> None:
        async with AsyncPool(script) as pool:
            await pool.start()  # a second start changes nothing
        with pytest.raises(Unavailable, match="the pool is closed; make another one"):
            await pool.start()

    asyncio.run(again())


@pytest.mark.parametrize(("method", "body", "timeout", "told"), [
    ("nap", 60, 0.2, "call of 'nap' was not answered within 0.2 s, the call's timeout, and its worker was killed; give it more time"),
    ("impatient", None, None, "call of 'impatient' was not answered within 0.2 s, expose's timeout, and its worker was killed"),
    ("impatient", None, "30 s", "not answered within 0.2 s, expose's timeout"),
    ("nap", 60, None, "not answered within 0.5 s, the pool's timeout"),
])  # fmt: skip
def test_a_deadline_says_how_long_it_was_and_which_timeout_ruled(method: str, body: Any, timeout: Any, told: str) -> None:
    async def asynchronously() -> None:
        async with AsyncPool(SUBJECT, timeout=0.5) as pool:
            await pool.call(method, body, timeout=timeout)

    with Pool(SUBJECT, timeout=0.5) as pool:
        for call in (lambda: pool.call(method, body, timeout=timeout), lambda: list(pool.stream(method, body, timeout=timeout)),
                     lambda: pool.submit(method, body, timeout=timeout).result(), lambda: asyncio.run(asynchronously())):
            with pytest.raises(DeadlineExceeded) as caught:
                call()
            assert told in str(caught.value)


def test_a_call_that_finds_no_worker_says_how_long_it_waited() -> None:
    with Pool(SUBJECT, workers=1) as pool:
        busy = pool.submit("nap", 60)
        with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s, the call's timeout; give it more time, or the pool more workers"):
            pool.call("echo", 1, timeout=0.2)
        assert not busy.done()


def test_a_forked_child_holds_no_descriptor_of_an_asynchronous_pool() -> None:
    def held() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}

    async def use() -> None:
        async with AsyncPool(SUBJECT) as pool:
            assert await pool.call("echo", 1) == 1
            worker = next(iter(pool._core.supervisor._population.workers))
            of_pool = {os.readlink(f"/proc/self/fd/{fd}") for fd in (worker.channel.requests, worker.channel.answers)}
            assert of_pool <= held()
            child = os.fork()
            if child == 0:
                os._exit(1 if of_pool & held() else 0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert await pool.call("echo", 2) == 2

    asyncio.run(use())


def test_a_worker_that_is_given_back_while_it_is_ending_keeps_no_descriptor() -> None:
    with Pool(pathlib.Path(__file__).with_name("subject.py")) as pool:
        core = pool._core
        worker = core.checkout.take()
        assert worker is not None
        worker.doomed = "cancelled"
        core.give_back(worker)
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.finished.wait(20)
        with worker.holding:
            assert worker.channel.requests == worker.channel.answers == -1
        assert pool.call("echo", 1) == 1
