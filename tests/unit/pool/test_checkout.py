"""Lending without processes: who gets which worker, whose wait it is, when the queue is full."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from pyproc import ResourceExhausted
from pyproc.pool.admission import Span
from pyproc.pool.checkout import Checkout, Waiter
from pyproc.pool.ledger import Ledger
from pyproc.supervisor.outfit import Outfit
from pyproc.supervisor.state import Worker
from pyproc.supervisor.tree import Tree


@pytest.fixture
def worker() -> Iterator[Worker]:
    outfit = Outfit("w1")
    made = Worker(cast(Tree, None), outfit, 1024, 1024)
    yield made
    outfit.lent()
    made.channel.close()
    for fd in made.outputs:
        open(fd, "rb").close()


def waiter(wake: Callable[[], None] = lambda: None) -> Waiter:
    return Waiter(wake, Span.of(1000.0))


def test_a_worker_goes_to_the_first_who_waits(worker: Worker) -> None:
    checkout, woken = Checkout(2, Ledger()), []
    first, second = waiter(lambda: woken.append(1)), waiter(lambda: woken.append(2))
    checkout.enqueue(first)
    checkout.enqueue(second)
    checkout.give(worker)
    assert (woken, first.worker, second.worker, checkout.queued) == ([1], worker, None, 1)


def test_nobody_overtakes_the_queue(worker: Worker) -> None:
    checkout = Checkout(1, Ledger())
    checkout.give(worker)
    assert checkout.take() is worker
    checkout.enqueue(waiter())
    assert checkout.take() is None


def test_a_doomed_worker_is_not_lent(worker: Worker) -> None:
    checkout, waiting = Checkout(1, Ledger()), waiter()
    worker.doomed = "deadline"
    checkout.give(worker)
    assert checkout.take() is None
    checkout.enqueue(waiting)
    checkout.give(worker)
    assert waiting.worker is None


def test_a_wait_ends_once(worker: Worker) -> None:
    checkout, given, left, dismissed = Checkout(3, Ledger()), waiter(), waiter(), waiter()
    checkout.enqueue(given)
    checkout.enqueue(left)
    checkout.enqueue(dismissed)
    checkout.give(worker)
    assert [checkout.leave(left) for _ in range(2)] == [True, False]
    checkout.dismiss()
    assert [checkout.leave(one) for one in (given, dismissed) for _ in range(2)] == [True, False] * 2
    assert (given.worker, left.worker, dismissed.worker, checkout.queued) == (worker, None, None, 0)


def test_the_queue_takes_as_many_as_it_says_also_from_many_threads_at_once() -> None:
    ledger = Ledger()
    checkout, refused = Checkout(5, ledger), []
    gate = threading.Barrier(20)

    def join() -> None:
        gate.wait()
        try:
            checkout.enqueue(waiter())
        except ResourceExhausted as error:
            refused.append(error.bound)

    threads = [threading.Thread(target=join) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (checkout.queued, ledger.accepted, refused) == (5, 5, ["queue"] * 15)
    with pytest.raises(ResourceExhausted, match="queue is full with 5 calls"):
        checkout.check_room()


def test_only_the_watched_are_woken_when_their_time_is_over() -> None:
    checkout, woken = Checkout(4, Ledger()), []
    for name, deadline in (("has a clock", 1.0), ("first", 1.0), ("second", 2.0), ("third", 5.0)):
        one = Waiter(lambda name=name: woken.append(name), Span.of(1.0), watched=name != "has a clock")  # type: ignore[misc]
        one.deadline = deadline
        checkout.enqueue(one)
    assert [checkout.overdue(now) for now in (0.5, 2.0, 2.0, 6.0)] == [1.0, 5.0, 5.0, math.inf]
    assert woken == ["first", "second", "third"]
