"""Large values through real workers: exact, safe from what a worker does afterwards, in place on request, and without arenas too."""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest

from pyproc import AsyncPool, CallError, Limits, PayloadTooLarge, Pool, Sandbox, WorkerLost
from pyproc.host import libc
from pyproc.link import arena
from pyproc.supervisor.state import Worker
from pyproc_wire.limits import ARENA_VALUE_BYTES as LARGE

SCRIPT = pathlib.Path(__file__).with_name("arena.py")
LIMITS = Limits(request="16 MiB", response="16 MiB", memory="512 MiB")
MIB = 1 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(SCRIPT, workers=2, limits=LIMITS) as made:
        while len(made._core.checkout.idle) < 2:
            made.call("echo", 1)  # each test counts descriptors, and a start opens some
        yield made


def noise(size: int) -> Any:
    return numpy.frombuffer(random.randbytes(size), "u1")


def workers(pool: Pool | AsyncPool) -> list[Worker]:
    return list(pool._core.supervisor._workers)


@pytest.mark.unprivileged
@pytest.mark.parametrize("size", [LARGE - 1, LARGE, 5 * MIB])
@pytest.mark.parametrize("dtype", ["u1", ">i4", "<c8"])
def test_an_array_arrives_there_and_back(pool: Pool, size: int, dtype: str) -> None:
    array = noise(size // 16 * 16).view(dtype).reshape(2, -1)
    with numpy.errstate(all="ignore"):
        for body in (array, array[:, ::-1], numpy.asfortranarray(array), {"a": array, "b": [array[0], b"x" * size]}):
            numpy.testing.assert_equal(pool.call("echo", body), body)
    assert pool.call("echo", array).flags.writeable
    assert pool.call("writeable", array) is False
    assert pool.call("writeable", array[0, :3].copy()) is False


def test_what_does_not_fit_is_refused_as_without_an_arena(pool: Pool) -> None:
    with pytest.raises(PayloadTooLarge, match="limit is 16777216"):
        pool.call("echo", noise(16 * MIB))
    with pytest.raises(PayloadTooLarge) as caught:
        pool.call("fill", {"size": 16 * MIB, "value": 1})
    assert caught.value.bound == "response"
    assert pool.call("fill", {"size": 15 * MIB, "value": 1}).all()


def test_what_a_worker_writes_afterwards_changes_nothing(pool: Pool) -> None:
    with Pool(SCRIPT, limits=LIMITS) as own:
        got = own.call("fill_and_go_on", {"size": 8 * MIB, "value": 1})
        before = got.copy()
        assert own.call("look", numpy.zeros(3, "u1"))[:2] == [0, 0]  # it has run meanwhile
        assert (got == before).all()


def test_what_a_function_keeps_stays_what_it_was() -> None:
    with Pool(SCRIPT, limits=LIMITS) as own:
        arrays = [noise(MIB + number) for number in range(3)]
        for array in arrays:
            own.call("keep", array)
        own.call("echo", noise(4 * MIB))
        for number, array in enumerate(arrays):
            numpy.testing.assert_array_equal(own.call("kept", number), array[3:])


def test_many_kept_arrays_cost_no_descriptor() -> None:
    with Pool(SCRIPT, limits=Limits(request="1 MiB", response="1 MiB", open_files=16)) as own:
        assert [own.call("keep", noise(LARGE)) for _ in range(32)] == list(range(1, 33))


@pytest.mark.unprivileged
@pytest.mark.parametrize("profile", ["strict", "default"])
def test_a_worker_can_write_only_answers_and_change_no_size(profile: str) -> None:
    with Pool(SCRIPT, limits=LIMITS, sandbox=Sandbox(profile)) as own:
        assert own.call("write_to_the_requests") == ["map", "write", "shrink", "shrink answers", "grow answers"]


@pytest.mark.unprivileged
def test_what_is_written_to_an_arena_cannot_be_executed(pool: Pool) -> None:
    refused = pool.call("run_what_was_written")
    ways = ["map", "map shared", "dup", "dup2", "dup3", "fcntl", "mprotect"]
    if pool.status()["layers"]["mdwe"]["state"] != "enforced":
        ways.remove("mprotect")
    assert refused == ways


def test_parts_of_a_stream_are_their_own(pool: Pool) -> None:
    parts = list(pool.stream("parts", 5))
    assert [set(part.tolist()) for part in (part[::1000] for part in parts)] == [{n} for n in range(5)]


def test_threads_do_not_meet_in_an_arena(pool: Pool) -> None:
    def one(number: int) -> bool:
        array = numpy.full(2 * MIB + number, number, "u1")
        return bool((pool.call("echo", array) == array).all())

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(one, range(40)))


def test_a_death_with_a_large_value_costs_one_call() -> None:
    with Pool(SCRIPT, limits=LIMITS) as own:
        before = noise(4 * MIB)
        built = own.empty(before.shape, "u1")
        built[:] = before
        with pytest.raises(WorkerLost) as caught:
            own.call("die", built)
        assert caught.value.reason == "signal:SIGSEGV"
        numpy.testing.assert_array_equal(own.call("echo", built), before)  # another worker, so a copy


def test_a_retired_worker_takes_its_arena_along() -> None:
    with Pool(SCRIPT, limits=LIMITS, max_requests=1) as own:
        for number in range(4):
            array = numpy.full(MIB, number, "u1")
            with own.view("echo", array) as view:
                assert (view.value == number).all()
            assert (own.call("echo", array) == number).all()


def test_isolation_call_has_arenas_too() -> None:
    with Pool(SCRIPT, limits=LIMITS, isolation="call", workers=2) as own:
        pids = {own.call("look", numpy.full(MIB, 7, "u1"))[2] for _ in range(4)}
        assert len(pids) == 4
        built = own.empty(MIB, "u1")
        assert not own._core.placed.blocks, "another call's process could read it"
        built[:] = 5
        assert own.call("look", built)[:2] == [5, 5]


@pytest.mark.unprivileged
def test_the_limit_of_memory_holds_for_what_is_built_in_an_arena() -> None:
    """By the worker's group, or by the limit of addresses, under which so large an arena is not mapped."""
    with Pool(SCRIPT, limits=Limits(response="512 MiB", memory="256 MiB")) as own:
        with pytest.raises(CallError) as caught:
            own.call("hoard", 400 * MIB)
        assert getattr(caught.value, "reason", None) == "oom" or caught.value.bound == "memory"
        assert own.call("look", noise(MIB))


# In place.


def test_what_is_built_in_place_is_sent_without_a_copy(pool: Pool) -> None:
    built = pool.empty((2, MIB), "i2")
    built[:] = 3
    [holder] = {block.worker for block in pool._core.placed.blocks.values()}
    for body in (built, {"x": built}, [built], built[1]):
        numpy.testing.assert_equal(pool.call("echo", body), body)
    placed: list[bool] = []
    place = type(holder.channel.arena.sender).place

    def note(sender: Any, *arguments: Any) -> Any:
        offset = place(sender, *arguments)
        placed.append(offset is not None and offset >= sender._floor)
        return offset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(holder.channel.arena.sender), "place", note)
        pool.call("echo", {"x": built, "y": noise(MIB)})
    assert placed == [True, False]
    built[:] = 4
    assert (pool.call("echo", built) == 4).all()
    del built, body
    pool.empty(1)
    for _ in range(4):
        pool.call("echo", 1)
    assert not pool._core.placed.blocks


def test_room_that_nobody_holds_is_used_again() -> None:
    with Pool(SCRIPT, limits=LIMITS) as own:
        for _ in range(5):
            built = own.empty(12 * MIB, "u1")
            assert len(own._core.placed.blocks) == 1
            own.empty(12 * MIB, "u1")  # no room for a second one: ordinary memory
            assert len(own._core.placed.blocks) == 1
            assert (own.call("echo", numpy.full(15 * MIB, 3, "u1")) == 3).all()
            del built


def test_a_view_is_lent_until_its_release(pool: Pool) -> None:
    with pool.view("fill", {"size": MIB, "value": 6}) as view:
        assert (view.value == 6).all() and not view.value.flags.writeable
        assert sorted(worker["state"] for worker in pool.status()["workers"]) == ["busy", "idle"]
        held = view.value[5:]
    assert view.value is None
    view.release()
    for number in range(4):
        pool.call("fill", {"size": MIB, "value": number})
    assert (held == 6).all()
    assert [worker["state"] for worker in pool.status()["workers"]] == ["idle", "idle"]
    with pool.view("echo", {"small": 1}) as view:
        assert view.value == {"small": 1}
    with pytest.raises(CallError):
        pool.view("fill", {"size": -1})


def test_a_view_outlives_its_worker_and_its_pool() -> None:
    with Pool(SCRIPT, limits=LIMITS) as own:
        view = own.view("fill", {"size": MIB, "value": 6})
        own.close()
    assert (view.value == 6).all()
    kept = view.value
    view.release()
    assert (kept == 6).all()


def test_a_view_that_nobody_holds_gives_its_worker_back() -> None:
    with Pool(SCRIPT, limits=LIMITS) as own:
        own.view("fill", {"size": MIB, "value": 6})
        assert own.call("echo", 1, timeout=5) == 1


def test_an_event_loop_has_the_same() -> None:
    async def main() -> None:
        async with AsyncPool(SCRIPT, workers=2, limits=LIMITS) as own:
            array = noise(3 * MIB)
            built = own.empty(array.shape, "u1")
            built[:] = array
            for got in await asyncio.gather(*(own.call("echo", body) for body in (array, built, array[::-1], built))):
                assert sorted(got[:100].tolist()) in (sorted(array[:100].tolist()), sorted(array[-100:].tolist()))
            with await own.view("echo", built) as view:
                assert (view.value == array).all()

    asyncio.run(main())


# Without.


class Refusing:
    """Stands for `libc.kernel`: `name` is refused with `code`."""

    def __init__(self, real: libc.Kernel, name: str, code: int) -> None:
        self._real, self._name, self._code = real, name, code

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._real, name)

        def refuse(*arguments: Any) -> Any:
            if name == "fcntl" and arguments[1] != 1033:
                return self._real.fcntl(*arguments)
            raise OSError(self._code, os.strerror(self._code))

        return refuse


@pytest.mark.parametrize(("name", "code"), [("memfd_create", errno.EPERM), ("memfd_create", errno.ENOSYS), ("fcntl", errno.EINVAL),
                                            ("ftruncate", errno.EFBIG), ("mmap", errno.ENOMEM)])
def test_without_memfd_or_seals_values_go_through_the_pipe(name: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "kernel", Refusing(libc.kernel, name, code))
    with Pool(SCRIPT, limits=LIMITS) as own:
        assert not any(worker.channel.arena.there for worker in workers(own))
        array = noise(2 * MIB)
        numpy.testing.assert_equal(own.call("echo", [array, bytes(array)]), [array, bytes(array)])
        assert own.call("writeable", array) is False
        assert own.call("keep", array) == 1
        own.call("echo", noise(2 * MIB))
        numpy.testing.assert_array_equal(own.call("kept", 0), array[3:])
        built = own.empty(MIB, "u1")
        built[:] = 1
        assert own.call("look", built)[:2] == [1, 1]
        with own.view("fill", {"size": MIB, "value": 2}) as view:
            assert (view.value == 2).all()


def test_no_descriptor_for_an_arena_is_no_reason_to_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "kernel", Refusing(libc.kernel, "memfd_create", errno.EMFILE))
    with pytest.raises(OSError, match=r"[Tt]oo many"):
        arena.Arena(MIB, MIB)


def test_an_arena_that_cannot_be_made_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Callable[..., int] = libc.kernel.memfd_create
    before = set(os.listdir("/proc/self/fd"))
    for limit in range(3):
        count = iter(range(10))

        def scarce(*arguments: Any, count: Any = count, limit: int = limit) -> int:
            if next(count) >= limit:
                raise OSError(errno.EMFILE, "too many")
            return made(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(libc.kernel, "memfd_create", scarce)
            try:
                arena.Arena(MIB, MIB).close()
            except OSError:
                assert limit < 2
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_fork_of_the_application_may_read_what_was_built(pool: Pool) -> None:
    built = pool.empty(MIB, "u1")
    built[:] = 9
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, bytes([int(built[5])]))
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == bytes([9])
    os.close(reader)
    os.waitpid(child, 0)
