"""Calls that are sent ahead: each runs once and is counted once, whatever ends the worker, the call before it or its own time; none
waits behind a busy worker while another one is idle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from pyproc import (
    AsyncPool,
    CallError,
    ConfigError,
    DeadlineExceeded,
    Limits,
    Pool,
    PyprocError,
    ResourceExhausted,
    Restart,
    Sandbox,
    Unavailable,
    WorkerLost,
)
from pyproc.pool.ear import Ear
from pyproc.pool.loop_call import WorkerLane
from pyproc_wire.connection import CallerConnection

SCRIPT = pathlib.Path(__file__).with_name("ahead.py")
SUBJECT = pathlib.Path(__file__).with_name("subject.py")


class Gate:
    """What a held function waits for."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.made = 0

    def path(self) -> str:
        self.made += 1
        return str(self.folder / f"open{self.made}")

    def open(self, path: str) -> None:
        pathlib.Path(path).touch()
        os.chmod(path, 0o644)


@pytest.fixture
def gate(tmp_path: pathlib.Path) -> Gate:
    return Gate(tmp_path)


class Opened(AsyncPool):
    """All its workers are there when it is entered, and not only the first."""

    async def __aenter__(self) -> Opened:
        await super().__aenter__()
        await until(lambda: len(self._core.checkout.idle) == self._options["workers"])
        return self


def pool_of(gate: Gate, workers: int = 1, prefetch: int = 8, **options: Any) -> Opened:
    return Opened(SCRIPT, workers=workers, prefetch=prefetch, sandbox=Sandbox(read=[gate.folder]), **options)


def ledger(pool: AsyncPool) -> dict[str, int]:
    """The ledger, whose equation holds whenever one looks."""
    found: dict[str, int] = pool.status()["ledger"]
    assert found["accepted"] == sum(count for name, count in found.items() if name != "accepted"), found
    return found


async def until(true: Callable[[], Any]) -> None:
    """Wait for it; a bound, not a promise."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0)


def lanes(pool: AsyncPool) -> list[WorkerLane]:
    return [lane for dispatcher in pool._dispatchers.values() for lane in dispatcher._lanes.values()]


def outstanding(pool: AsyncPool) -> list[int]:
    """The numbers of calls on the workers that have some."""
    return sorted(len(lane.calls) for lane in lanes(pool))


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(50):
            await test

    asyncio.run(bounded())


async def ended(calls: list[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def start(pool: AsyncPool, method: str, body: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(pool.call(method, body, **options))


@pytest.mark.parametrize("prefetch", [1, 2, 16, 64])
def test_every_call_has_its_own_answer(gate: Gate, prefetch: int) -> None:
    async def main() -> None:
        bodies = [random.choice([random.random(), "x" * random.randrange(9000), b"y" * random.randrange(200), None, [1] * 50])
                  for _ in range(400)]
        async with pool_of(gate, workers=2, prefetch=prefetch) as pool:
            assert await asyncio.gather(*(pool.call("echo", body) for body in bodies)) == bodies
            found = ledger(pool)
            assert (found["accepted"], found["ok"], found["in_flight"], pool.status()["queued"]) == (400, 400, 0, 0)
            await until(lambda: all(worker["state"] == "idle" for worker in pool.status()["workers"]))

    run(main())


def test_calls_of_one_worker_run_in_the_order_in_which_they_came(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            marks = await asyncio.gather(*(pool.call("mark", number) for number in range(100)))
            assert marks[-1][1:] == list(range(100))

    run(main())


def test_as_many_calls_are_sent_ahead_as_were_asked_for(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate, prefetch=4) as pool:
            path = gate.path()
            calls = [start(pool, "held", path)] + [start(pool, "echo", number) for number in range(9)]
            await until(lambda: pool.status()["queued"] == 9)
            assert outstanding(pool) == [4]
            gate.open(path)
            assert (await ended(calls))[1:] == list(range(9))

    run(main())


@pytest.mark.parametrize("method", ["held", "held_and_looking", "held_in_a_loop"])
def test_nothing_waits_behind_a_busy_worker_while_another_is_idle(gate: Gate, method: str) -> None:
    """Of two workers both are held; the calls sent ahead are behind either of them, and one of the two is let go."""
    async def main() -> None:
        async with pool_of(gate, workers=2) as pool:
            await until(lambda: len(pool.status()["workers"]) == 2)
            paths = [gate.path(), gate.path()]
            held = [start(pool, method, path) for path in paths]
            await until(lambda: ledger(pool)["in_flight"] == 2)
            calls = [start(pool, "echo", number) for number in range(8)]
            await until(lambda: pool.status()["queued"] == 8)
            gate.open(paths[0])
            assert await ended(calls) == list(range(8))  # though the other worker is held
            assert not held[1].done()
            gate.open(paths[1])
            assert len(set(await ended(held))) == 2

    run(main())


def test_the_worker_with_the_fewest_calls_gets_the_next(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate, workers=2, prefetch=4) as pool:
            await until(lambda: len(pool.status()["workers"]) == 2)
            paths = [gate.path(), gate.path()]
            calls = [start(pool, "held", path) for path in paths] + [start(pool, "echo", number) for number in range(4)]
            await until(lambda: outstanding(pool) == [3, 3])
            assert pool.status()["queued"] == 4
            for path in paths:
                gate.open(path)
            await ended(calls)

    run(main())


@pytest.mark.parametrize("behind", [0, 1, 7])
def test_a_death_loses_the_first_unanswered_call_alone(gate: Gate, behind: int) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            path = gate.path()
            calls = [start(pool, "held_then_die", path)] + [start(pool, "mark", number) for number in range(behind)]
            await until(lambda: pool.status()["queued"] == behind)
            gate.open(path)
            lost, *marks = await ended(calls)
            assert isinstance(lost, WorkerLost) and (lost.reason, lost.may_have_run) == ("exit:3", True)
            assert [mark[-1] for mark in marks] == list(range(behind))
            assert not marks or marks[-1][1:] == list(range(behind)), "each ran once, in a new worker"
            found = ledger(pool)
            assert (found["accepted"], found["ok"], found["lost"], found["in_flight"]) == (1 + behind, behind, 1, 0)

    run(main())


def test_workers_killed_at_any_moment_cost_a_call_each(gate: Gate) -> None:
    async def main() -> None:
        kills = 4
        async with pool_of(gate, workers=2, prefetch=random.choice([2, 5, 16])) as pool:
            calls = [start(pool, "mark", number) for number in range(600)]
            for _ in range(kills):
                goal = ledger(pool)["ok"] + random.randrange(1, 60)
                await until(lambda: ledger(pool)["ok"] >= goal)  # noqa: B023 - it is awaited in the loop's turn
                victim = random.choice(list(pool._core.supervisor._workers))
                with victim.holding, contextlib.suppress(ProcessLookupError):  # it has ended
                    if victim.pidfd >= 0:
                        signal.pidfd_send_signal(victim.pidfd, signal.SIGKILL)
            results = await ended(calls)
        lost = [number for number, result in enumerate(results) if isinstance(result, BaseException)]
        assert all(isinstance(results[number], WorkerLost) for number in lost)
        assert len(lost) <= kills
        seen: dict[tuple[int, int], int] = {}
        for number, result in enumerate(results):
            if number not in lost:
                assert result[-1] == number
                marks = seen.setdefault((result[0], 0), 0)
                seen[result[0], 0] = max(marks, len(result) - 1)
        began = sum(seen.values())
        assert len(results) - len(lost) <= began <= len(results), "none ran twice"

    run(main())


@pytest.mark.parametrize("prefetch", [1, 2, 8])
def test_a_call_whose_time_is_over_behind_another_costs_no_worker(gate: Gate, prefetch: int) -> None:
    async def main() -> None:
        async with pool_of(gate, prefetch=prefetch) as pool:
            path = gate.path()
            held, late, other = start(pool, "held", path), start(pool, "mark", 1, timeout=0.05), start(pool, "mark", 2)
            await until(lambda: ledger(pool)["in_flight"] == 3)
            with pytest.raises(DeadlineExceeded, match="found no idle worker"):
                await late
            assert not held.done() and not other.done()
            gate.open(path)
            assert await other == [await held, 2]  # the same process, and the late one never ran
            assert ledger(pool) == {"accepted": 3, "ok": 2, "failed": 0, "deadline": 1, "cancelled": 0, "lost": 0, "in_flight": 0}
            assert pool.status()["deaths"] == {}

    run(main())


def test_the_kill_of_a_late_call_costs_no_other_call(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            late = start(pool, "held", gate.path(), timeout=0.2)
            others = [start(pool, "mark", number) for number in range(5)]
            await until(lambda: outstanding(pool) == [6])
            with pytest.raises(DeadlineExceeded, match="its worker was killed"):
                await late
            assert (await ended(others))[-1][1:] == list(range(5))
            assert (ledger(pool)["deadline"], ledger(pool)["ok"]) == (1, 5)

    run(main())


def test_the_deadline_of_a_call_that_was_sent_ahead_is_its_own(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            path = gate.path()
            first, second = start(pool, "held", path), start(pool, "held", gate.path(), timeout=0.5)
            await until(lambda: outstanding(pool) == [2])
            gate.open(path)
            await first
            with pytest.raises(DeadlineExceeded):
                await second
            assert ledger(pool)["deadline"] == 1

    run(main())


def test_a_cancelled_call_that_has_not_begun_never_runs(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            path = gate.path()
            calls = [start(pool, "held", path)] + [start(pool, "mark", number) for number in range(4)]
            await until(lambda: outstanding(pool) == [5])
            calls[2].cancel()
            with pytest.raises(asyncio.CancelledError):
                await calls.pop(2)
            assert (ledger(pool)["cancelled"], ledger(pool)["in_flight"]) == (1, 4)
            gate.open(path)
            pid, *marks = await ended(calls)
            assert marks[-1] == [pid, 0, 2, 3]
            assert pool.status()["deaths"] == {}

    run(main())


@pytest.mark.parametrize("method", ["held", "held_and_looking", "held_in_a_loop"])
def test_a_cancelled_call_that_runs_costs_the_others_nothing(gate: Gate, method: str) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            first = start(pool, method, gate.path())
            others = [start(pool, "mark", number) for number in range(4)]
            await until(lambda: pool.status()["queued"] == 4)
            first.cancel()
            assert [mark[-1] for mark in await ended(others)] == list(range(4))
            found = ledger(pool)
            assert (found["cancelled"], found["ok"], found["in_flight"]) == (1, 4, 0)

    run(main())


def test_cancellations_and_deadlines_at_any_moment_are_counted_once(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate, workers=2, prefetch=6) as pool:
            calls: list[asyncio.Task[Any]] = []
            for _ in range(300):
                method, body = random.choice([("echo", 1), ("fail", "x"), ("mark", 1), ("say", "hello")])
                calls.append(start(pool, method, body, timeout=random.choice([None, None, 0.01])))
                if random.random() < 0.3:
                    await asyncio.sleep(0)
                if random.random() < 0.2:
                    random.choice(calls).cancel()
                ledger(pool)
            results = await ended(calls)  # type: ignore[arg-type]
            await until(lambda: ledger(pool)["in_flight"] == 0)
            found = ledger(pool)
            refused = sum(pool.status()["rejected"].values())
            cancelled = sum(isinstance(result, asyncio.CancelledError) for result in results)
            never = sum(1 for result in results if isinstance(result, asyncio.CancelledError)) - found["cancelled"]
            assert found["accepted"] + refused <= len(calls) and never >= 0
            assert sum(not isinstance(result, BaseException) for result in results) <= found["ok"]
            assert cancelled >= found["cancelled"]
            assert pool.status()["queued"] == 0
            assert await pool.call("echo", 7) == 7

    run(main())


def test_the_end_of_the_pool_is_told_to_each_call(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            calls = [start(pool, "held", gate.path())] + [start(pool, "mark", number) for number in range(3)]
            await until(lambda: outstanding(pool) == [4])
            await pool.close()
            lost, *others = await ended(calls)
            assert isinstance(lost, WorkerLost) and lost.reason == "shutdown"
            assert all(isinstance(other, Unavailable) for other in others), others
            found = ledger(pool)
            assert (found["lost"], found["failed"], found["in_flight"]) == (1, 3, 0)

    run(main())


def test_a_worker_serves_no_more_than_its_requests(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate, max_requests=5) as pool:
            marks = await asyncio.gather(*(pool.call("mark", number) for number in range(23)))
            assert max(len(mark) - 1 for mark in marks) == 5
            assert sorted(mark[-1] for mark in marks) == list(range(23))
            assert pool.status()["deaths"] == {}

    run(main())


def test_a_stream_gets_a_worker_between_calls_that_are_sent_ahead() -> None:
    async def main() -> None:
        async with AsyncPool(SUBJECT, workers=1, prefetch=8) as pool:
            async def call() -> None:
                while not done:
                    await pool.call("echo", 1)

            done = False
            callers = [asyncio.ensure_future(call()) for _ in range(24)]
            await until(lambda: pool.status()["queued"] > 12)
            assert [part async for part in pool.stream("numbers", 40)] == list(range(40))
            done = True
            await asyncio.gather(*callers)

    run(main())


def test_a_full_queue_refuses_also_what_could_be_sent_ahead(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate, prefetch=2, queue=2) as pool:
            path = gate.path()
            calls = [start(pool, "held", path)] + [start(pool, "echo", number) for number in range(2)]
            await until(lambda: pool.status()["queued"] == 2)
            with pytest.raises(CallError, match="queue is full"):
                await pool.call("echo", 3)
            gate.open(path)
            assert (await ended(calls))[1:] == [0, 1]

    run(main())


def test_large_values_arrive_between_small_ones(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate, limits=Limits(memory="512 MiB")) as pool:
            bodies = [os.urandom(random.choice([10, 5000, 300_000, 2_000_000])) for _ in range(20)]
            assert await asyncio.gather(*(pool.call("echo", body) for body in bodies)) == bodies
            with await pool.view("echo", bodies[0]) as view:
                assert view.value == bodies[0]

    run(main())


def test_a_worker_that_answers_out_of_turn_is_ended_and_its_answer_not_believed(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            path = gate.path()
            calls = [start(pool, "held", path), start(pool, "answer_the_next", -1)]
            calls += [start(pool, "mark", number) for number in range(3)]
            await until(lambda: outstanding(pool) == [5])
            gate.open(path)
            _, hostile, *marks = await ended(calls)
            assert isinstance(hostile, WorkerLost) and hostile.reason == "protocol"
            assert [mark[-1] for mark in marks] == [0, 1, 2]
            assert (ledger(pool)["lost"], ledger(pool)["ok"]) == (1, 4)

    run(main())


def test_a_forked_child_changes_nothing_of_a_call_that_is_partly_sent(gate: Gate) -> None:
    async def main() -> None:
        async with pool_of(gate) as pool:
            (worker,) = pool.status()["workers"]
            os.kill(worker["pid"], signal.SIGSTOP)
            body = os.urandom(1_000_000)
            calls = [start(pool, "echo", body)] + [start(pool, "mark", number) for number in range(3)]
            await until(lambda: any(lane.rest for lane in lanes(pool)))
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    (dispatcher,) = pool._dispatchers.values()
                    for lane in dispatcher._lanes.values():
                        for call in list(lane.calls):
                            dispatcher.leave(call)
                    try:
                        dispatcher.start("echo", 1, None)
                    except PyprocError:
                        code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            os.kill(worker["pid"], signal.SIGCONT)
            back, *marks = await ended(calls)
            assert back == body and marks[-1][1:] == [0, 1, 2]

    run(main())


@pytest.mark.parametrize(("options", "told"), [
    ({"prefetch": 0}, "prefetch is 0"),
    ({"prefetch": 257}, "prefetch is 257"),
    ({"prefetch": 4, "isolation": "call"}, "prefetch is 4, and each call has a worker of its own; write 1"),
    ({"prefetch": 4, "queue": 3}, "calls that are sent ahead stand in the queue of 3; write at most 3, or a longer queue"),
])  # fmt: skip
def test_a_prefetch_without_effect_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        asyncio.run(AsyncPool(SCRIPT, **options).start())


def test_a_blocking_pool_says_that_it_sends_none_ahead() -> None:
    with pytest.raises(ConfigError, match=r"prefetch is 4, and a Pool sends no call ahead.*write 1, or use AsyncPool"):
        Pool(SCRIPT, prefetch=4)


# Where the queue, the loop or a descriptor ends under the calls.


def nothing_under_way(pool: AsyncPool) -> None:
    """Nothing of the pool is under way."""
    assert ledger(pool)["in_flight"] == 0, ledger(pool)


def test_a_call_that_is_handed_back_after_the_queue_was_dismissed_ends(gate: Gate) -> None:
    async def test() -> None:
        async with pool_of(gate) as pool:
            path = gate.path()
            first = start(pool, "held_and_looking", path)
            await until(lambda: outstanding(pool) == [1])
            second = start(pool, "echo", 2)
            await until(lambda: outstanding(pool) == [2])
            closing = threading.Thread(target=pool._core.close, args=(20,))
            closing.start()
            while not pool._core.closing or pool.status()["queued"]:
                pass  # the loop hears neither of the dismissal nor of the hand-back meanwhile
            gate.open(path)
            assert await first > 0
            with pytest.raises(CallError):
                await second
            await asyncio.to_thread(closing.join)
        nothing_under_way(pool)

    run(test())


def test_what_waits_behind_a_death_that_breaks_the_pool_is_told_so(gate: Gate) -> None:
    async def test() -> None:
        async with pool_of(gate, restart=Restart(intensity=0, period=60)) as pool:
            path = gate.path()
            first, others = start(pool, "held_then_die", path), [start(pool, "echo", number) for number in range(3)]
            await until(lambda: outstanding(pool) == [4])
            gate.open(path)
            while pool.status()["unavailable"] is None:
                pass  # the loop hears of nothing before all of it has happened
            with pytest.raises(WorkerLost):
                await first
            for other in others:
                with pytest.raises(Unavailable):
                    await other
            nothing_under_way(pool)

    run(test())


def test_a_call_that_is_given_a_worker_when_its_time_is_over_gives_it_back_once(gate: Gate) -> None:
    async def test() -> None:
        async with pool_of(gate, workers=2) as pool:
            core, path = pool._core, gate.path()
            other = core.checkout.take()
            assert other is not None
            first = start(pool, "held", path)
            await until(lambda: outstanding(pool) == [1])
            late = start(pool, "echo", 1, timeout=30)
            await until(lambda: outstanding(pool) == [2])
            (waiter,) = core.checkout.waiters
            waiter.deadline = time.monotonic()
            core.overdue(time.monotonic())  # and before the loop hears of that:
            core.give_back(other)
            assert waiter.worker is other
            with pytest.raises(DeadlineExceeded):
                await late
            for _ in range(5):
                await asyncio.sleep(0)
            assert list(core.checkout.idle) == [other]
            gate.open(path)
            assert await first > 0
            assert await asyncio.gather(*(start(pool, "echo", number) for number in range(20))) == list(range(20))
            nothing_under_way(pool)

    run(test())


def test_a_closed_loop_leaves_no_call_and_no_worker_behind(gate: Gate) -> None:
    pool, path = pool_of(gate), gate.path()
    left, begun = asyncio.new_event_loop(), []

    async def begin() -> None:
        await pool.start()
        begun.extend([start(pool, "held", path), start(pool, "echo", 1, timeout=0.1), start(pool, "echo", 2)])
        await until(lambda: outstanding(pool) == [3])

    left.run_until_complete(begin())
    left.close()

    async def go_on() -> None:
        assert await pool.call("echo", 5, timeout=20) == 5
        await until(lambda: ledger(pool)["in_flight"] == 0)
        found = ledger(pool)
        assert (found["accepted"], found["ok"], found["cancelled"]) == (4, 1, 3)
        await pool.close()

    asyncio.run(go_on())
    for task in begun:
        task._log_destroy_pending = False


def test_a_loop_that_ends_with_an_idle_worker_gives_it_back(gate: Gate) -> None:
    pool, left = pool_of(gate), asyncio.new_event_loop()

    async def begin() -> None:
        await pool.start()
        assert await pool.call("echo", "x" * 5000) == "x" * 5000
        raise SystemExit

    with pytest.raises(SystemExit):
        left.run_until_complete(begin())
    left.close()

    async def go_on() -> None:
        assert await pool.call("echo", 5, timeout=20) == 5
        await pool.close()

    asyncio.run(go_on())
    nothing_under_way(pool)


def test_an_interrupt_while_an_answer_is_read_costs_no_worker_and_no_count(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, value = pool_of(gate), CallerConnection.value

    def interrupted(connection: CallerConnection, raw: Any, **options: Any) -> Any:
        monkeypatch.setattr(CallerConnection, "value", value)
        raise KeyboardInterrupt

    async def begin() -> None:
        await pool.start()
        monkeypatch.setattr(CallerConnection, "value", interrupted)
        await pool.call("echo", "x" * 3000)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(begin())

    async def go_on() -> None:
        assert await pool.call("echo", 5, timeout=20) == 5
        await pool.close()

    asyncio.run(go_on())
    assert ledger(pool)["cancelled"] == 1
    nothing_under_way(pool)


@pytest.mark.parametrize("queued", [False, True])
def test_a_worker_that_cannot_be_heard_refuses_the_call_and_goes_back(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, queued: bool,
) -> None:
    def none_left(ear: Ear, loop: Any, worker: Any) -> None:
        raise OSError(24, os.strerror(24))

    async def test() -> None:
        async with pool_of(gate) as pool:
            waiting = []
            if queued:
                parts = pool.stream("parts", 2)
                assert await anext(parts) == 0
                waiting = [start(pool, "echo", 1)]
                await until(lambda: pool.status()["queued"] == 1)
            with monkeypatch.context() as patch:
                for dispatcher in pool._dispatchers.values():
                    dispatcher._known.clear()
                pool._ears.clear()
                patch.setattr(Ear, "__init__", none_left)
                if queued:
                    await parts.aclose()
                with pytest.raises(ResourceExhausted, match="ulimit -n") as refused:
                    await (waiting[0] if queued else pool.call("echo", 1))
            assert refused.value.bound == "descriptors"
            assert await pool.call("echo", 2, timeout=20) == 2
            nothing_under_way(pool)

    run(test())


@pytest.mark.parametrize("prefetch", [1, 4])
def test_a_death_is_told_while_all_threads_of_the_loop_wait(gate: Gate, prefetch: int) -> None:
    async def test() -> None:
        over, loop = threading.Event(), asyncio.get_running_loop()
        async with pool_of(gate, prefetch=prefetch) as pool:
            waiting = [loop.run_in_executor(None, over.wait) for _ in range(64)]
            path = gate.path()
            call = start(pool, "held_then_die", path)
            await until(lambda: ledger(pool)["in_flight"] == 1)
            gate.open(path)
            with pytest.raises(WorkerLost):
                await asyncio.wait_for(call, 20)
            over.set()
            await asyncio.gather(*waiting)

    run(test())


@pytest.mark.parametrize("prefetch", [1, 4])
def test_a_loop_whose_threads_have_ended_is_told_of_a_death(gate: Gate, prefetch: int) -> None:
    async def test() -> None:
        pool, path = pool_of(gate, prefetch=prefetch), gate.path()
        await pool.start()
        call = start(pool, "held_then_die", path)
        await until(lambda: ledger(pool)["in_flight"] == 1)
        await asyncio.get_running_loop().shutdown_default_executor()
        gate.open(path)
        with pytest.raises(WorkerLost):
            await call
        nothing_under_way(pool)
        pool._core.close(0)
        pool._autopsies.shutdown()

    run(test())
