"""Pool.executor: the contract of concurrent.futures.Executor, kept by functions that run in the sandbox. What is sent is code, what
comes back is data."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import functools
import gc
import itertools
import logging
import operator
import os
import pathlib
import pickle
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any

import numpy
import pytest

from pyproc import (
    AsyncPool,
    ConfigError,
    DeadlineExceeded,
    FunctionFailed,
    InvalidArgument,
    Limits,
    NotFound,
    PayloadTooLarge,
    Pool,
    PyprocError,
    Sandbox,
    Unavailable,
    WorkerLost,
)
from pyproc_wire.pickled import PICKLED
from pyproc_worker import PublicError

SCRIPT = pathlib.Path(__file__).with_name("subject.py")
FACTOR = 3


def multiply(x: int, y: int = 2) -> int:
    return x * y * FACTOR // 3


def capture(*args: object, **kwargs: object) -> tuple[object, ...]:
    return args, kwargs


def divide(x: int) -> float:
    return 6 / x


def spin() -> None:
    while True:
        pass


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def moved(self, by: int) -> int:
        return self.x + by


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(workers=2, limits=Limits(memory="512 MiB")) as made:
        while len(made.status()["workers"]) < 2:
            made.call("health")  # both are there before a test looks at what is open
        yield made


@pytest.fixture
def executor(pool: Pool) -> Iterator[Executor]:
    with pool.executor() as made:
        yield made


@pytest.fixture
def mortal() -> Iterator[Executor]:
    """Of a pool whose workers may die: what the next test finds does not depend on when another one has come."""
    with Pool(workers=2) as made, made.executor() as executor:
        yield executor


class Held:
    """A pool for functions whose only worker is busy until `release`."""

    def __init__(self, **options: Any) -> None:
        self.pool = Pool(SCRIPT, workers=1, **options)
        self._stream = self.pool.stream("numbers", 100_000)
        next(self._stream)
        self.executor = self.pool.executor()

    def release(self) -> None:
        self._stream.close()

    def occupied(self) -> Future[int]:
        """A future that has begun: the one thread waits for the worker."""
        future = self.executor.submit(multiply, 1)
        while not future.running():
            threading.Event().wait(0.001)
        return future

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
        self.pool.close()


# submit


@pytest.mark.unprivileged
def test_functions_run_in_the_sandbox(executor: Executor) -> None:
    assert executor.submit(multiply, 21).result(20) == 42
    assert executor.submit(multiply, 21, y=3).result(20) == 63
    assert executor.submit(os.getpid).result(20) < 1000  # of its own namespace
    with pytest.raises(FunctionFailed):
        executor.submit(pathlib.Path("/etc/passwd").read_text).result(20)


def test_any_callable_that_the_program_has_can_be_sent(executor: Executor) -> None:
    by = 5
    for fn, arguments, wanted in [
        (lambda x: x + by, (1,), 6),
        (functools.partial(multiply, y=10), (2,), 20),
        (Point(3).moved, (4,), 7),
        (operator.add, ([1], [2]), [1, 2]),
        (len, ("four",), 4),
    ]:
        assert executor.submit(fn, *arguments).result(20) == wanted


def test_every_name_can_be_a_keyword(executor: Executor) -> None:
    assert executor.submit(capture, 1, self=2, fn=3).result(20) == ((1,), {"self": 2, "fn": 3})


def test_arguments_are_any_object_and_as_they_were_at_the_submit() -> None:
    with Held() as held:
        numbers = [1, 2]
        future = held.executor.submit(lambda point, numbers: point.moved(sum(numbers)), Point(10), numbers)
        numbers.append(100)
        held.release()
        assert future.result(20) == 13


@pytest.mark.parametrize(
    "value",
    [None, 2**63, 0.5, "text", b"\x80\x05", (1, (2,)), {1, 2}, {"a": [1]}, datetime.date(2026, 1, 2), datetime.timedelta(1)],
    ids=repr,
)
def test_a_value_arrives_as_what_it_was(executor: Executor, value: object) -> None:
    arrived = executor.submit(lambda: value).result(20)
    assert arrived == value and type(arrived) is type(value)


def test_an_array_arrives(executor: Executor) -> None:
    arrived = executor.submit(lambda n: numpy.arange(n) * 2, 1000).result(20)
    assert (arrived == numpy.arange(1000) * 2).all()


def test_a_value_that_is_no_data_is_refused_with_its_path(executor: Executor) -> None:
    with pytest.raises(FunctionFailed, match=r"Point is not carried by MessagePack at \$\.points\[1\]") as caught:
        executor.submit(lambda: {"points": [1, Point(2)]}).result(20)
    assert caught.value.path == "$.points[1]"
    for fn in (lambda: (n for n in range(3)), lambda: asyncio.sleep(0)):
        with pytest.raises(FunctionFailed, match="is no data"):
            executor.submit(fn).result(20)
    assert executor.submit(multiply, 1).result(20) == 2


def test_what_a_function_raises_is_in_the_log_under_its_error_id(executor: Executor, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise KeyError("the secret")

    with caplog.at_level(logging.INFO, "pyproc"), pytest.raises(FunctionFailed) as caught:
        executor.submit(fail).result(20)
    assert caught.value.message == "Processing failed"
    assert "the secret" not in repr(caught.value)
    [record] = [record.getMessage() for record in caplog.records if caught.value.error_id in record.getMessage()]
    assert "KeyError: 'the secret'" in record


def test_a_public_error_passes(executor: Executor) -> None:
    def refuse() -> None:
        raise PublicError("no such row")

    with pytest.raises(FunctionFailed, match="no such row"):
        executor.submit(refuse).result(20)


def test_what_cannot_be_pickled_or_is_too_long_is_said_by_the_future(executor: Executor, pool: Pool) -> None:
    before = pool.status()["ledger"]["accepted"]
    with pytest.raises(InvalidArgument, match="function cannot be pickled"):
        executor.submit(multiply, threading.Lock()).result(20)  # type: ignore[arg-type]
    with pytest.raises(PayloadTooLarge):
        executor.submit(len, b"x" * (9 << 20)).result(20)
    assert pool.status()["ledger"]["accepted"] == before


# modules


@pytest.mark.unprivileged
def test_modules_of_the_program_travel_with_their_code(
    tmp_path: pathlib.Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_the_program.py").write_text(
        "RATE = 3\nSECRET = 'hunter2'\nclass Row:\n    def __init__(self, x): self.x = x\n"
        "def scale(x): return x * RATE\ndef twice(row): return scale(row.x) * 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import of_the_program  # type: ignore[import-not-found]

    twice, row = of_the_program.twice, of_the_program.Row
    assert executor.submit(twice, row(2)).result(20) == 12
    assert executor.submit(lambda x: twice(row(x)), 3).result(20) == 18
    with pytest.raises(InvalidArgument, match="uses the module 'of_the_program' as a whole"):
        executor.submit(lambda x: of_the_program.scale(x), 1).result(20)
    with pytest.raises(InvalidArgument, match="uses the module 'of_the_program' as a whole"):  # its functions were sent before
        executor.submit(lambda x: (twice, of_the_program), 1).result(20)

    import cloudpickle

    assert "of_the_program" not in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.register_pickle_by_value(of_the_program)
    try:
        assert executor.submit(lambda x: of_the_program.scale(x), 1).result(20) == 3
        assert "of_the_program" in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(of_the_program)


@pytest.mark.unprivileged
def test_modules_beside_a_script_are_imported_where_its_folder_is_listed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "beside_it.py").write_text("STATE = []\ndef state(): return STATE\n")
    (tmp_path / "worker.py").write_text("import beside_it\nbeside_it.STATE.append('of the script')\n")
    monkeypatch.syspath_prepend(tmp_path)
    import beside_it  # type: ignore[import-not-found]

    with Pool(tmp_path / "worker.py", sandbox=Sandbox(read=[str(tmp_path)])) as pool:
        assert pool.executor().submit(beside_it.state).result(20) == ["of the script"]
    with Pool(SCRIPT) as pool:
        assert pool.executor().submit(beside_it.state).result(20) == []


def test_a_module_that_the_sandbox_lacks_is_named(executor: Executor) -> None:
    def needs() -> None:
        raise AssertionError("is not loaded")

    class Reference:
        def __reduce__(self) -> tuple[Any, ...]:
            return __import__, ("no_such_module_inside",)

    with pytest.raises(FunctionFailed, match="no module 'no_such_module_inside' in the sandbox"):
        executor.submit(needs, Reference()).result(20)


# map


def test_map_gives_results_in_order(executor: Executor) -> None:
    assert list(executor.map(multiply, range(100))) == [2 * n for n in range(100)]
    assert list(executor.map(multiply, range(3), itertools.count(1))) == [0, 2, 6]
    assert list(executor.map(multiply, [])) == []


@pytest.mark.parametrize("chunksize", [1, 3, 10, 1000])
def test_map_in_chunks_gives_the_same(executor: Executor, pool: Pool, chunksize: int) -> None:
    before = pool.status()["ledger"]["accepted"]
    assert list(executor.map(capture, range(10), range(10), chunksize=chunksize)) == [((n, n), {}) for n in range(10)]
    assert pool.status()["ledger"]["accepted"] - before == -(-10 // chunksize)


def test_map_refuses_an_impossible_chunk(executor: Executor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(multiply, range(3), chunksize=0)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_raises_an_error_in_its_place(executor: Executor, chunksize: int) -> None:
    results = executor.map(divide, [3, 2, 0, 1], chunksize=chunksize)
    assert [next(results), next(results)] == [2.0, 3.0]
    with pytest.raises(FunctionFailed):
        next(results)


def test_map_gives_up_after_its_timeout() -> None:
    with Held() as held:
        results = held.executor.map(multiply, range(3), timeout=0)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)


# the end


def test_shutdown_ends_the_executor_and_not_the_pool(pool: Pool) -> None:
    first, other = pool.executor(), pool.executor()
    future = first.submit(multiply, 1)
    first.shutdown()
    assert future.done() and future.result(0) == 2
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            first.submit(multiply, 1)
        first.shutdown()
    with pytest.raises(RuntimeError):
        first.map(multiply, [1])
    assert other.submit(multiply, 2).result(20) == 4
    assert pool.executor().submit(multiply, 3).result(20) == 6


def test_shutdown_without_waiting_lets_what_was_submitted_run() -> None:
    with Held() as held:
        futures = [held.executor.submit(multiply, n) for n in range(3)]
        held.executor.shutdown(wait=False)
        assert not any(future.done() for future in futures)
        held.release()
        assert [future.result(20) for future in futures] == [0, 2, 4]


def test_shutdown_can_cancel_what_has_not_begun() -> None:
    with Held() as held:
        runs = held.occupied()
        others = held.pool.executor().submit(multiply, 5)
        waiting = [held.executor.submit(multiply, n) for n in range(3)]
        held.executor.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
        assert not runs.cancelled() and not others.cancelled()  # of another executor
        held.release()
        held.executor.shutdown()
        assert runs.result(0) == 2 and others.result(20) == 10


def test_the_context_manager_waits(pool: Pool) -> None:
    with pool.executor() as executor:
        futures = [executor.submit(multiply, n) for n in range(20)]
    assert [future.result(0) for future in futures] == [2 * n for n in range(20)]


def test_a_future_is_cancelled_before_it_begins_only() -> None:
    with Held() as held:
        runs = held.occupied()
        waits = held.executor.submit(multiply, 2)
        assert waits.cancel() and not runs.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waits.result(0)
        before = held.pool.status()["ledger"]["accepted"]
        held.release()
        assert runs.result(20) == 2
        assert held.pool.status()["ledger"]["accepted"] == before  # the cancelled one was never sent


def test_a_closed_pool_takes_no_function_and_fails_what_waits() -> None:
    others = set(threading.enumerate())
    with Held() as held:
        futures = [held.occupied(), *(held.executor.submit(multiply, n) for n in range(3))]
        held.pool.close()
        assert [type(future.exception(20)) for future in futures] == [Unavailable] * 4
        for executor in (held.executor, held.pool.executor()):
            with pytest.raises(RuntimeError, match="cannot schedule new futures"):
                executor.submit(multiply, 1)
    for thread in set(threading.enumerate()) - others:
        thread.join(20)
        assert not thread.is_alive()


def test_an_executor_holds_its_pool_and_a_future_its_executor() -> None:
    executor = Pool(workers=1).executor()
    gc.collect()
    assert executor.submit(multiply, 21).result(20) == 42
    executor._pool.close()  # type: ignore[attr-defined]
    with Held() as held:
        future, held_weakly = held.occupied(), weakref.ref(held.executor)
        del held.executor
        gc.collect()
        assert held_weakly() is not None
        held.release()
        assert future.result(20) == 2


def test_a_forked_child_is_refused(pool: Pool, executor: Executor) -> None:
    executor.submit(multiply, 1).result(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork where there are threads
        child = os.fork()
    if child == 0:
        try:
            executor.submit(multiply, 1)
        except PyprocError as error:
            os._exit(7 if "fork" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert executor.submit(multiply, 1).result(20) == 2


# others' ways of waiting


def test_wait_and_as_completed(executor: Executor) -> None:
    futures = {executor.submit(multiply, n): n for n in range(10)}
    done_ones = concurrent.futures.as_completed(futures, 20)
    assert {futures[future]: future.result() for future in done_ones} == {n: 2 * n for n in range(10)}
    failed = executor.submit(divide, 0)
    assert concurrent.futures.wait([failed], 20, concurrent.futures.FIRST_EXCEPTION) == ({failed}, set())


def test_asyncio_runs_functions_in_it(pool: Pool) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool.executor(), multiply, n) for n in range(50)))

    assert asyncio.run(main()) == [2 * n for n in range(50)]


def test_asyncio_stops_waiting_and_what_had_not_begun_never_runs() -> None:
    with Held() as held:
        held.occupied()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(loop.run_in_executor(held.executor, multiply, 1), 0.01)

        asyncio.run(main())
        before = held.pool.status()["ledger"]["accepted"]
        held.release()
        held.executor.shutdown()
        assert held.pool.status()["ledger"]["accepted"] == before


def test_an_async_pool_has_one_too() -> None:
    async def main() -> int:
        async with AsyncPool(workers=1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool.executor(), multiply, 21)

    assert asyncio.run(main()) == 42


def test_joblib_runs_its_batches_in_it(pool: Pool) -> None:
    import joblib
    from joblib.parallel import ParallelBackendBase

    class Backend(ParallelBackendBase):  # type: ignore[misc]
        supports_retrieve_callback = True

        def effective_n_jobs(self, n_jobs: int) -> int:
            return n_jobs

        def submit(self, func: Any, callback: Any = None) -> Future[Any]:
            future = pool.executor().submit(func)
            future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, future: Future[Any]) -> Any:
            return future.result()

    with joblib.parallel_config(Backend(), n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(multiply)(n) for n in range(10)) == [2 * n for n in range(10)]
        with pytest.raises(FunctionFailed):
            joblib.Parallel()(joblib.delayed(divide)(n) for n in range(3))


def test_a_dask_worker_keeps_its_own_part_and_the_task_is_in_the_sandbox(mortal: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    def _run_task_simple(task: Any, values: dict[str, int], delay: float) -> dict[str, Any]:
        """As distributed's: what it returns holds a class, and is for its own process."""
        try:
            result = task(values)
        except BaseException as error:
            return {"error": error, "pid": os.getpid()}
        return {"result": result, "type": type(result), "pid": os.getpid()}

    dask = types.ModuleType("distributed.worker")
    with pytest.raises(FunctionFailed):  # of what only claims the name
        _run_task_simple.__module__ = dask.__name__
        mortal.submit(_run_task_simple, lambda values: 1, {}, 0.0).result(20)
    monkeypatch.setattr(dask, "_run_task_simple", _run_task_simple, raising=False)
    monkeypatch.setitem(sys.modules, dask.__name__, dask)
    def claims(task: object) -> int:
        return os.getpid()

    claims.__module__, claims.__name__ = dask.__name__, "_run_task_simple"
    assert mortal.submit(claims, 1).result(20) != os.getpid()
    told = mortal.submit(_run_task_simple, lambda values: [values["a"], os.getpid()], {"a": 1}, 0.0).result(20)
    assert told["pid"] == os.getpid() and told["type"] is list
    assert told["result"][0] == 1 and told["result"][1] != os.getpid()
    assert isinstance(mortal.submit(_run_task_simple, lambda values: os.abort(), {}, 0.0).result(20)["error"], WorkerLost)


# deaths and bounds


@pytest.mark.unprivileged
def test_a_dead_worker_costs_its_own_future_alone(mortal: Executor) -> None:
    futures = [mortal.submit(os.abort if n == 3 else functools.partial(multiply, n)) for n in range(10)]
    lost = futures.pop(3).exception(20)
    assert isinstance(lost, WorkerLost) and lost.reason == "signal:SIGABRT" and lost.may_have_run
    assert [future.result(20) for future in futures] == [2 * n for n in range(10) if n != 3]
    assert mortal.submit(multiply, 1).result(20) == 2


@pytest.mark.unprivileged
def test_memory_and_time_have_their_bounds() -> None:
    with Pool(workers=1, timeout=1.0, limits=Limits(memory="256 MiB")) as pool, pool.executor() as executor:
        with pytest.raises(DeadlineExceeded):
            executor.submit(spin).result(20)
        assert executor.submit(multiply, 1).result(20) == 2
        greedy = executor.submit(lambda: len(bytearray(1 << 30))).exception(20)
        assert isinstance(greedy, PyprocError)
        assert executor.submit(multiply, 1).result(20) == 2


def test_more_can_be_submitted_than_the_queue_holds_and_waiting_costs_no_time() -> None:
    with Held(queue=1, timeout=5.0) as held:
        futures = [held.executor.submit(multiply, n) for n in range(200)]
        held.release()
        assert [future.result(20) for future in futures] == [2 * n for n in range(200)]
        assert held.pool.status()["rejected"] == {}


def test_a_queue_without_room_for_the_workers_is_refused() -> None:
    with Pool(workers=2, queue=1) as pool, pytest.raises(ConfigError, match="write queue=2 or more"):
        pool.executor()


@pytest.mark.unprivileged
def test_each_function_gets_a_process_of_its_own_where_that_is_asked_for() -> None:
    def leave() -> bool:
        found = hasattr(sys, "left_behind")
        sys.left_behind = True  # type: ignore[attr-defined]
        return found

    with Pool(workers=2, isolation="call") as pool:
        assert list(pool.executor().map(lambda _: leave(), range(6))) == [False] * 6


def test_without_cloudpickle_the_extra_is_named(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    monkeypatch.delitem(sys.modules, "pyproc.pool.pickling", raising=False)
    with Pool(SCRIPT) as other, pytest.raises(ConfigError, match=r"pip install pyproc-supervisor\[pickle\]"):
        other.executor()
    with pytest.raises(ConfigError, match=r"pip install pyproc-supervisor\[pickle\]"):
        Pool()


# the boundary


def test_nobody_who_calls_by_name_reaches_the_runner() -> None:
    harmless = {"pickle": pickle.dumps((len, ("abc",), {})), "each": False}
    with Pool(SCRIPT) as pool:
        for _ in range(2):
            for method in (PICKLED, "pickled", "_run"):
                for call in (pool.call, lambda *a: pool.submit(*a).result(20), lambda *a: list(pool.stream(*a))):
                    with pytest.raises(NotFound):
                        call(method, harmless)
            assert PICKLED not in pool.functions()
            assert pool.executor().submit(len, "abc").result(20) == 3


class Canary:
    """Whoever unpickles it calls `print` with what it was given."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("loaded on the wrong side",)


LOADED: list[str] = []
WATCHED = threading.Event()


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and WATCHED.is_set():
        LOADED.append(".".join(arguments))


sys.addaudithook(note)


def test_what_a_worker_sends_is_never_unpickled(executor: Executor, capfd: pytest.CaptureFixture[str]) -> None:
    class Carrying(Exception):
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("loaded on the wrong side",)

    def hostile() -> None:
        raise Carrying(Canary())

    def public() -> None:
        raise PublicError(Canary())

    def cause() -> None:
        raise ValueError from Carrying()

    image = pickle.dumps(Canary())
    WATCHED.set()
    try:
        assert executor.submit(lambda: pickle.dumps(Canary())).result(20) == image  # bytes are bytes
        assert executor.submit(lambda: [image, {"pickle": image, "each": False}]).result(20)[0] == image
        for fn in (Canary, lambda: [Canary()], lambda: {"a": Canary()}, hostile, public, cause, lambda: Carrying()):
            with pytest.raises(FunctionFailed):
                executor.submit(fn).result(20)
            with pytest.raises(FunctionFailed):
                list(executor.map(lambda _, fn=fn: fn(), range(2), chunksize=2))
    finally:
        WATCHED.clear()
    assert LOADED == []
    assert "loaded on the wrong side" not in capfd.readouterr().out


def test_the_canary_sings_where_a_pickle_is_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    WATCHED.set()
    try:
        pickle.loads(pickle.dumps(Canary()))
    finally:
        WATCHED.clear()
    assert LOADED == ["builtins.print"]
    LOADED.clear()
    assert "loaded on the wrong side" in capfd.readouterr().out
