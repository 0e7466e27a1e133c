"""submit and map: calls like any other, that nobody waits for: their time counts from the submit, they stand in the queue, and
what becomes of them is in their future."""

from __future__ import annotations

import concurrent.futures
import pathlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from pyproc import DeadlineExceeded, InvalidArgument, NotFound, Pool, ResourceExhausted, Unavailable, WorkerLost

SCRIPT = pathlib.Path(__file__).with_name("subject.py")


class Held:
    """A pool whose only worker is busy until `release`."""

    def __init__(self, **options: Any) -> None:
        self.pool = Pool(SCRIPT, workers=1, **options)
        self._stream = self.pool.stream("numbers", 100_000)
        next(self._stream)

    def release(self) -> None:
        self._stream.close()

    @property
    def queued(self) -> int:
        return int(self.pool.status()["queued"])

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.close()
        self.release()


@pytest.fixture
def held() -> Iterator[Held]:
    """It takes two more calls, which wait."""
    with Held(queue=2) as made:
        yield made


def test_what_waits_stands_in_the_queue_and_is_bounded_by_it(held: Held) -> None:
    waiting = [held.pool.submit("echo", n) for n in range(2)]
    assert held.queued == 2
    assert held.pool.status()["ledger"]["in_flight"] == 3
    refused = held.pool.submit("echo", 3)
    error = refused.exception(0)
    assert isinstance(error, ResourceExhausted) and error.bound == "queue"
    held.release()
    assert [future.result(20) for future in waiting] == [0, 1]


def test_the_time_counts_from_the_submit(held: Held) -> None:
    late, other = held.pool.submit("echo", 1, timeout=0.2), held.pool.submit("echo", 2)
    assert isinstance(late.exception(20), DeadlineExceeded)
    assert held.queued == 1
    assert held.pool.status()["ledger"]["deadline"] == 1
    held.release()
    assert other.result(20) == 2


def test_a_future_that_waits_can_be_cancelled_and_leaves_the_queue(held: Held) -> None:
    first, second = held.pool.submit("echo", 1), held.pool.submit("echo", 2)
    called: list[Future[Any]] = []
    first.add_done_callback(called.append)
    assert first.cancel()
    assert concurrent.futures.wait([first], 0).done == {first}
    assert called == [first]
    assert first.cancel() and called == [first]
    assert held.queued == 1
    assert held.pool.status()["ledger"]["cancelled"] == 1
    held.release()
    assert second.result(20) == 2
    assert held.pool.status()["ledger"]["in_flight"] == 0


def test_a_call_that_runs_is_not_cancelled_by_its_future() -> None:
    with Pool(SCRIPT) as pool:
        future = pool.submit("nap", 0.05)
        assert not future.cancel()
        assert future.result(20) == 0.05


def test_what_a_call_raises_is_its_futures() -> None:
    with Pool(SCRIPT) as pool:
        for arguments, error in ((("nope",), NotFound), (("echo", object()), InvalidArgument), (("die_by", 3), WorkerLost)):
            with pytest.raises(error):
                pool.submit(*arguments).result(20)
        assert pool.submit("echo", 1).result(20) == 1


def test_a_body_is_taken_as_it_was_at_the_submit(held: Held) -> None:
    body = [1]
    waiting = held.pool.submit("echo", body)
    body.append(2)
    held.release()
    assert waiting.result(20) == [1]
    runs = held.pool.submit("echo", body)
    body.append(3)
    assert runs.result(20) == [1, 2]


def test_what_waits_as_the_pool_closes_is_unavailable(held: Held) -> None:
    waiting = [held.pool.submit("echo", n) for n in range(2)]
    held.pool.close()
    assert [type(future.exception(20)) for future in waiting] == [Unavailable, Unavailable]
    assert held.pool.status()["ledger"]["failed"] == 2
    with pytest.raises(Unavailable):
        held.pool.submit("echo", 1)


def test_a_callback_that_calls_the_pool_finds_a_worker() -> None:
    with Held() as held:
        answers: list[Any] = []
        all_called = threading.Barrier(5)

        def call_on(future: Future[Any]) -> None:
            answers.append(held.pool.call("echo", future.result()))
            all_called.wait(20)

        waiting = [held.pool.submit("echo", number) for number in range(4)]
        for future in waiting:
            future.add_done_callback(call_on)
        held.release()
        all_called.wait(20)
        assert sorted(answers) == [0, 1, 2, 3]


def test_where_no_thread_can_be_had_the_future_says_so(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, left = held.pool.submit("echo", 1), held.pool.submit("echo", 2)
    submissions = held.pool._submissions
    assert submissions is not None

    def fail(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(submissions._threads, "submit", fail)
        held.release()
        assert [type(future.exception(20)) for future in (waiting, left)] == [Unavailable, Unavailable]
        assert isinstance(held.pool.submit("echo", 3).exception(20), Unavailable)
    assert held.pool.submit("echo", 4).result(20) == 4
    assert held.pool.status()["ledger"]["in_flight"] == 0


@pytest.mark.parametrize(("workers", "queue"), [(1, 0), (1, 1), (2, 0), (2, 1), (2, 1000)])
def test_a_map_of_any_length_fits_into_any_queue_and_stays_in_order(workers: int, queue: int) -> None:
    with Pool(SCRIPT, workers=workers, queue=queue) as pool:
        assert list(pool.map("echo", range(500))) == list(range(500))
        assert pool.status()["rejected"] == {}


def test_a_map_takes_its_input_as_it_goes() -> None:
    taken: list[int] = []

    def counted() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with Pool(SCRIPT, workers=2) as pool:
        results = pool.map("echo", counted())
        assert taken == []
        assert next(results) == 0
        assert len(taken) <= 1 + 2 + 4 + 8  # batches of twice the workers, none of more than twice the one before
        for number in range(1, 100):
            assert next(results) == number
        assert list(results) == []


def bodies(held: Held) -> Iterator[int]:
    """One body, and then no more; not before the first one waits."""
    yield 1
    assert held.queued == 2
    raise ZeroDivisionError


def test_a_map_that_ends_early_cancels_what_waits() -> None:
    with Held(queue=3) as held:
        first = held.pool.submit("echo", 0)
        results = held.pool.map("echo", bodies(held))
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert held.queued == 1
        assert held.pool.status()["ledger"]["cancelled"] == 1
        held.release()
        assert first.result(20) == 0


def test_a_map_waits_for_its_own_calls_and_is_refused_where_others_fill_the_queue(held: Held) -> None:
    others = [held.pool.submit("echo", n) for n in range(2)]
    with pytest.raises(ResourceExhausted):
        next(held.pool.map("echo", [1]))
    held.release()
    assert [future.result(20) for future in others] == [0, 1]
