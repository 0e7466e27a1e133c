"""`map`: items that travel together are calls of their own: same results, same errors, one outcome each."""

from __future__ import annotations

import logging
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from pyproc import CallError, DeadlineExceeded, Limits, Pool, Unavailable, WorkerLost
from pyproc.pool import batches

SCRIPT = pathlib.Path(__file__).with_name("batched.py")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(SCRIPT, workers=2) as made:
        while len(made.status()["workers"]) < 2:
            made.call("typed", 0)  # else a test would seem to have left the second one
        yield made


def settled(pool: Pool) -> dict[str, int]:
    """The ledger when nothing is in flight: what a map has left is over soon, or the test ends by its time limit."""
    while pool.status()["ledger"]["in_flight"]:
        pool.call("typed", 0)
    return dict(pool.status()["ledger"])


def outcome(act: Any) -> Any:
    """A value, or what of an error is the same each time."""
    try:
        return act()
    except CallError as error:
        return type(error), error.message, error.path, error.bound


def test_cheap_items_travel_together(pool: Pool) -> None:
    ids = list(pool.map("who", range(3000)))
    assert len({name for name, _ in ids}) == 3000
    assert len({name.partition(".")[0] for name, _ in ids}) < 1000


WORDS = ("raise", "public", "object", "deep")


@pytest.mark.parametrize("seed", range(8))
def test_any_list_of_bodies_gives_what_single_calls_give(pool: Pool, seed: int) -> None:
    source = random.Random(seed)
    deep: Any = 0
    for _ in range(64):
        deep = [deep]
    kinds: list[Any] = [0, "text", {"a": [1, (2, 3)]}, None, b"x" * 300_000, deep, {1, 2}, {"act": "deep"}]
    bodies = [source.choice(kinds) if source.random() < 0.05 else source.randrange(1000) for _ in range(source.randrange(2000))]
    if seed % 2 and bodies:
        bodies[source.randrange(len(bodies))] = source.choice([{"act": word} for word in WORDS] + [object(), 1 << 64, [deep]])
    before = settled(pool)
    results = pool.map("act", bodies)
    got, wanted = [], []
    for body in bodies:
        wanted.append(outcome(lambda body=body: pool.call("act", body)))  # type: ignore[misc]
        got.append(outcome(lambda: next(results)))
        assert got[-1] == wanted[-1], f"seed {seed}, item {len(got) - 1}"
        if type(got[-1]) is tuple:
            break
    else:
        assert list(results) == []
    after = settled(pool)
    assert after["in_flight"] == before["in_flight"] == 0
    assert after["accepted"] == sum(after[name] for name in ("ok", "failed", "deadline", "cancelled", "lost"))


def test_each_item_is_a_call_of_the_ledger_of_its_worker_and_of_health() -> None:
    with Pool(SCRIPT, workers=1) as pool:
        assert list(pool.map("act", range(1000))) == list(range(1000))
        assert pool.call("health")["requests_handled"] == 1001
        status = pool.status()
        assert status["ledger"]["accepted"] == status["ledger"]["ok"] == status["workers"][0]["calls"] == 1001


@pytest.mark.parametrize(("method", "wanted"), [("times", [0, 1]), ("later", 2), ("watched", [2, False]), ("typed", 2)])
def test_a_function_of_any_kind_answers_an_item_as_it_answers_a_call(pool: Pool, method: str, wanted: Any) -> None:
    assert list(pool.map(method, [2] * 200)) == [wanted] * 200


def test_a_body_of_the_wrong_type_is_the_error_of_its_item(pool: Pool) -> None:
    results = pool.map("typed", [*range(500), "x", 1])
    assert [next(results) for _ in range(500)] == list(range(500))
    assert outcome(lambda: next(results)) == outcome(lambda: pool.call("typed", "x"))


@pytest.mark.parametrize(("word", "error", "bucket"), [("die", WorkerLost, "lost"), ("spin", DeadlineExceeded, "deadline")])
def test_a_lost_worker_keeps_what_was_answered_and_runs_nothing_twice(word: str, error: type[CallError], bucket: str) -> None:
    with Pool(SCRIPT, workers=1, timeout=0.5) as pool:
        results = pool.map("act", [*range(600), {"act": word}, *range(600)])
        got = []
        with pytest.raises(error) as lost:
            for result in results:
                got.append(result)
        assert got == list(range(len(got))) and len(got) <= 600
        assert lost.value.may_have_run or word == "spin"
        assert pool.call("act", 1) == 1
        ledger = settled(pool)
        assert ledger["in_flight"] == 0 and ledger[bucket] >= 1
        assert sum(pool.status()["deaths"].values()) == 1


def test_of_an_idempotent_function_only_the_item_that_kills_is_lost() -> None:
    with Pool(SCRIPT, workers=1) as pool:
        results = pool.map("repeatable", [*range(300), {"act": "die"}, 1])
        assert [next(results) for _ in range(300)] == list(range(300))
        with pytest.raises(WorkerLost):
            next(results)
        assert settled(pool)["in_flight"] == 0


def test_a_batch_takes_no_more_items_than_its_worker_has_calls_left() -> None:
    with Pool(SCRIPT, workers=1, max_requests=7) as pool:
        pids = [pid for _, pid in pool.map("who", range(70))]
        assert max(map(pids.count, set(pids))) <= 7
        assert settled(pool)["in_flight"] == 0


def test_with_a_process_for_each_call_each_item_has_one() -> None:
    with Pool(SCRIPT, workers=2, isolation="call") as pool:
        names = [name for name, _ in pool.map("who", range(12))]
        assert len(set(names)) == 12 and not any("." in name for name in names)


def test_what_items_print_has_the_room_of_calls_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pyproc")
    with Pool(SCRIPT, workers=1, limits=Limits(output="4 KiB")) as pool:
        bodies: list[Any] = [{"act": "print", "text": "x" * 1000} if n % 100 == 50 else n for n in range(1000)]
        assert list(pool.map("act", bodies)) == bodies
        assert pool.status()["output_dropped"] == 0
        assert pool.status()["deaths"] == {}
    assert sum(record.getMessage().count("printed") for record in caplog.records) == 10


def test_a_map_that_is_closed_early_leaves_nothing_in_flight(pool: Pool) -> None:
    results = pool.map("act", range(100_000))
    assert [next(results) for _ in range(2000)] == list(range(2000))
    results.close()  # type: ignore[attr-defined]
    ledger = settled(pool)
    assert ledger["in_flight"] == 0
    assert pool.status()["deaths"] == {}


def test_a_reader_of_a_map_may_call_its_only_worker() -> None:
    with Pool(SCRIPT, workers=1) as pool:
        for number in pool.map("act", range(2000)):
            if number % 100 == 0:
                assert pool.call("act", number) == number


def test_a_slow_item_gives_the_others_back() -> None:
    """An item takes longer than a turn; what stands behind it in its batch begins elsewhere, or later, and once."""
    with Pool(SCRIPT, workers=2) as pool:
        bodies = [0.0] * 500 + [0.1] + [0.0] * 500
        assert list(pool.map("nap", bodies)) == bodies
        ledger = settled(pool)
        assert ledger["ok"] == ledger["accepted"]


def test_a_batch_that_no_thread_can_be_had_for_leaves_nothing_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with Pool(SCRIPT, workers=1) as pool:
        pool.submit("typed", 0).result(20)
        assert pool._submissions is not None
        with monkeypatch.context() as without:
            without.setattr(batches, "FIRST_ITEMS", 4)
            without.setattr(pool._submissions._threads, "submit", fail)
            with pytest.raises(Unavailable):
                next(pool.map("typed", range(4)))
        assert settled(pool)["in_flight"] == 0


@pytest.mark.parametrize(("size", "items", "seconds", "octets", "wanted"), [
    (1, 1, 0.0001, 100, 2),            # short: twice as many
    (64, 64, 0.001, 1000, 128),
    (64, 32, 0.001, 1000, 64),         # of a batch that was begun before the last decision: no step back
    (64, 64, 0.02, 1000, 32),          # too long: as many as fit into a turn
    (64, 64, 10.0, 1000, 1),
    (4096, 4096, 0.001, 1000, 4096),   # the bound of the wire
    (64, 64, 0.001, 1 << 20, 16),      # too large
    (1, 1, 0.0, 0, 2),
    (1, 1, 0.007, 100, 1),             # two would not fit
])
def test_the_size_of_the_next_batch(size: int, items: int, seconds: float, octets: int, wanted: int) -> None:
    assert batches.next_size(size, items, seconds, octets) == wanted
