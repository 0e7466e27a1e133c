"""What is measured: each workload a class with the same three things, run in the process of one cell (cell.py).

    points               the names of what it measures, one after another, in each round
    needs                methods that a peer must have, or the cell is a dash
    measure(peer, point, count) -> {"p50_us", "p99_us", "calls_s", "ms", "kib"…}: some of these; `count` calls, every answer compared

How many calls make a round of the wanted length is found out before the first round (`calibrated`), which warms up as well: a peer
that gets faster is measured with more calls and not with shorter rounds.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

import facts
import numpy

BODY, ANSWER = {"value": 42}, {"result": 84}
SIZES = {"1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20, "16 MiB": 1 << 24, "100 MiB": 100 << 20}
IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
CALLS_MIN, CALLS_MAX = 2, 1 << 20
MAP_MIN = 1024  # bodies of a bulk call: fewer do not fill chunks of 64 for two workers


class WrongAnswer(Exception):
    """A peer that answers something else is not measured."""


def compare(answer: Any, wanted: Any) -> None:
    """Raise WrongAnswer unless they are equal; of arrays every element counts."""
    same = numpy.array_equal(answer, wanted) if isinstance(wanted, numpy.ndarray) else answer == wanted
    if not same:
        raise WrongAnswer(f"answer is {str(answer)[:100]}, expected {str(wanted)[:100]}")


def spread(taken: list[int], whole: int) -> dict[str, float]:
    """p50, p99 and rate of calls that took so many nanoseconds each, and `whole` together."""
    taken.sort()
    return {"p50_us": statistics.median(taken) / 1e3, "p99_us": taken[min(len(taken) - 1, len(taken) * 99 // 100)] / 1e3,
            "calls_s": len(taken) / whole * 1e9}


class Workload(ABC):
    """Calls that are made by `measure` as it likes."""

    needs: tuple[str, ...] = ("call",)
    workers = 1
    fresh = False
    once = False  # one round of one count is enough

    def __init__(self, *, quick: bool) -> None:
        self.points = [""]

    def open(self, make: Callable[..., Any]) -> Any:
        """A peer that has answered once."""
        peer = make(self.workers, fresh=self.fresh) if self.fresh else make(self.workers)
        compare(one(peer, "double", BODY), ANSWER)
        return peer

    @abstractmethod
    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        """The metrics of `count` calls, or of as many as one round of it makes."""


def one(peer: Any, name: str, body: Any) -> Any:
    """One call, of either kind of peer."""
    answer = peer.call(name, body)
    return peer.run(answer) if hasattr(peer, "run") else answer


class Latency(Workload):
    """One call at a time."""

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        if hasattr(peer, "run"):
            return peer.run(self._asynchronous(peer.call, count))
        call, clock, body, wanted, taken = peer.call, time.perf_counter_ns, BODY, ANSWER, []
        begun = clock()
        for _ in range(count):
            begin = clock()
            answer = call("double", body)
            taken.append(clock() - begin)
            if answer != wanted:
                raise WrongAnswer(str(answer)[:100])
        return spread(taken, clock() - begun)

    async def _asynchronous(self, call: Any, count: int) -> dict[str, float]:
        clock, taken = time.perf_counter_ns, []
        begun = clock()
        for _ in range(count):
            begin = clock()
            answer = await call("double", BODY)
            taken.append(clock() - begin)
            if answer != ANSWER:
                raise WrongAnswer(str(answer)[:100])
        return spread(taken, clock() - begun)


class Fresh(Latency):
    """One call at a time, each in a process that has served none."""

    fresh = True


class InFlight(Workload):
    """Calls a second with so many in flight; points are their numbers."""

    def __init__(self, *, quick: bool) -> None:
        self.points = [str(number) for number in (IN_FLIGHT[::3] if quick else IN_FLIGHT)]


class Threads(InFlight):
    """As many threads, each with one call at a time."""

    needs = ("call", "submit")  # who submits can be called from many threads

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        number = int(point)
        each = math.ceil(count / number)
        ready, found, failed = threading.Barrier(number + 1), [], []

        def calls() -> None:
            call, clock, taken = peer.call, time.perf_counter_ns, []
            ready.wait()
            try:
                for _ in range(each):
                    begin = clock()
                    compare(call("double", BODY), ANSWER)
                    taken.append(clock() - begin)
            except Exception as error:  # noqa: BLE001 - raised below, in the thread that measures
                failed.append(error)
            found.extend(taken)

        threads = [threading.Thread(target=calls) for _ in range(number)]
        for thread in threads:
            thread.start()
        ready.wait()
        begun = time.perf_counter_ns()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        return spread(found, time.perf_counter_ns() - begun)


class Submit(InFlight):
    """One thread that submits, and waits for the oldest."""

    needs = ("submit",)

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        number, submit, waiting = int(point), peer.submit, deque()
        begun = time.perf_counter_ns()
        for _ in range(count):
            if len(waiting) == number:
                compare(waiting.popleft()(), ANSWER)
            waiting.append(submit("double", BODY))
        for result in waiting:
            compare(result(), ANSWER)
        return {"calls_s": count / (time.perf_counter_ns() - begun) * 1e9}


class Tasks(InFlight):
    """As many tasks of one event loop, each with one call at a time."""

    needs = ("call", "run")

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        number = int(point)
        each = math.ceil(count / number)

        async def calls() -> None:
            for _ in range(each):
                compare(await peer.call("double", BODY), ANSWER)

        async def together() -> float:
            begun = time.perf_counter_ns()
            await asyncio.gather(*(calls() for _ in range(number)))
            return each * number / (time.perf_counter_ns() - begun) * 1e9

        return {"calls_s": peer.run(together())}


class Map(Workload):
    """The bulk call; points are how many calls travel together."""

    needs = ("map",)

    def __init__(self, *, quick: bool) -> None:
        self.points = ["default", "64"]

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        count = max(count, MAP_MIN)
        bodies, wanted = [{"value": value} for value in range(count)], [{"result": 2 * value} for value in range(count)]
        begun = time.perf_counter_ns()
        answers = peer.map("double", bodies, None if point == "default" else int(point))
        taken = time.perf_counter_ns() - begun
        compare(answers, wanted)
        return {"calls_s": count / taken * 1e9}


class Payload(Workload):
    """N bytes there and N bytes back; points are sizes."""

    def __init__(self, *, quick: bool) -> None:
        self.points = list(SIZES)[::2] if quick else list(SIZES)
        self._bodies: dict[str, Any] = {}

    @abstractmethod
    def body(self, size: int) -> Any:
        """A body of so many bytes."""

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        if point not in self._bodies:
            self._bodies[point] = self.body(SIZES[point])
        body, clock, taken = self._bodies[point], time.perf_counter_ns, []
        begun = clock()
        for _ in range(count):
            begin = clock()
            answer = one(peer, "echo", body)
            taken.append(clock() - begin)
            compare(answer, body)
            del answer
        return spread(taken, clock() - begun)


class Bytes(Payload):
    """As bytes."""

    def body(self, size: int) -> Any:
        return numpy.random.default_rng(size).bytes(size)


class Arrays(Payload):
    """As an array of float64."""

    def body(self, size: int) -> Any:
        return numpy.random.default_rng(size).random(size // 8)


class Start(Workload):
    """From making the pool to its first answer; the peer of the cell is only the class."""

    def open(self, make: Callable[..., Any]) -> Any:
        return make

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        taken = []
        for _ in range(count):
            begin = time.perf_counter_ns()
            pool = peer(1)
            try:
                compare(one(pool, "double", BODY), ANSWER)
                taken.append(time.perf_counter_ns() - begin)
            finally:
                pool.close()
        return {"ms": statistics.median(taken) / 1e6}


class Memory(Workload):
    """KiB of a worker after a few hundred calls: what is its own, and its share of all; and what all processes together add."""

    needs = ("call", "pids")
    workers = 2
    once = True
    CALLS = 500

    def measure(self, peer: Any, point: str, count: int) -> dict[str, float]:
        for _ in range(self.CALLS):
            one(peer, "double", BODY)
        workers = [facts.memory_kib(pid) for pid in peer.pids()]
        below = [facts.memory_kib(pid) for pid in facts.below()]
        return {"private_kib": statistics.mean(w["private"] for w in workers), "pss_kib": statistics.mean(w["pss"] for w in workers),
                "all_private_kib": sum(one["private"] for one in below)}


class Threads2(Threads):
    workers = 2


class Submit2(Submit):
    workers = 2


class Tasks2(Tasks):
    workers = 2


class Map2(Map):
    workers = 2


WORKLOADS: dict[str, type[Workload]] = {
    "latency": Latency, "fresh": Fresh, "threads 1": Threads, "threads 2": Threads2, "submit 1": Submit, "submit 2": Submit2,
    "tasks 1": Tasks, "tasks 2": Tasks2, "map 1": Map, "map 2": Map2, "bytes": Bytes, "arrays": Arrays,
    "start": Start, "memory": Memory,
}


def calibrated(workload: Workload, peer: Any, point: str, seconds: float) -> int:
    """How many calls a round of so many seconds has."""
    if workload.once:
        return 1
    workload.measure(peer, point, CALLS_MIN)  # the first one imports, maps memory, fills caches
    count = CALLS_MIN
    while True:
        begun = time.perf_counter()
        workload.measure(peer, point, count)
        taken = time.perf_counter() - begun
        if taken >= seconds / 4 or count >= CALLS_MAX:
            return max(CALLS_MIN, min(CALLS_MAX, round(count * seconds / taken)))
        count *= 4
