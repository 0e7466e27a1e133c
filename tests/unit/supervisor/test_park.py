"""How many workers are parked: what happened in, the number after it."""

from __future__ import annotations

import pytest

from pyproc.supervisor.park import FIRST, Park, bound, most

GIB, MANY = 1 << 30, 1 << 20
BOUNDS = [  # workers, bytes available, bytes for each worker, descriptors that may be opened -> the most
    (1, 64 * GIB, GIB, MANY, 12),
    (4, 64 * GIB, GIB, MANY, 24),
    (4, GIB, GIB, MANY, 16),  # a quarter of it, in pieces of 16 MiB
    (4, GIB, 8 << 20, MANY, 24),  # a worker that may use less is counted as less
    (1, 0, GIB, MANY, 0),
    (1, 64 * GIB, GIB, 96, 5),  # half of them, eight to each, and one worker has its own
    (1, 64 * GIB, GIB, 16, 0),
    (1, 64 * GIB, GIB, -5, 0),
]
SIZES = [  # the most, what happened ("missed", "short" with how many are there, or a period with so many unused) -> sizes
    (12, ["missed", "missed"], [3, 4]),
    (3, ["missed", "missed"], [3, 3]),
    (0, ["missed", 9], [0, 0]),
    (12, ["missed", 2, 2], [3, 2, 2]),
    (12, ["missed", 1, 0], [3, 3, 3]),
    (12, ["missed", "missed", ("short", 1), "missed"], [3, 4, 1, 2]),
    (12, [("short", -1)], [0]),
]


@pytest.mark.parametrize(("workers", "available", "memory", "descriptors", "expected"), BOUNDS)
def test_the_most_that_are_parked(workers: int, available: int, memory: int, descriptors: int, expected: int) -> None:
    assert most(workers, available=available, memory=memory, descriptors=descriptors) == expected <= bound(workers)


@pytest.mark.parametrize(("limit", "events", "sizes"), SIZES)
def test_the_park_follows_its_use(limit: int, events: list[str | int | tuple[str, int]], sizes: list[int]) -> None:
    park, found = Park(limit), []
    assert park.size == min(FIRST, limit)
    for event in events:
        before = park.size
        if event == "missed":
            park.missed()
        elif isinstance(event, tuple):
            park.short(event[1])
        else:
            assert isinstance(event, int)
            assert park.passed(event) is (park.size < before)
        found.append(park.size)
    assert found == sizes
