"""The bare ping-pong of two Python processes, alone: the floor that `pyproc bench` compares a call with.

    python bench/pingpong.py [ROUNDS]

Prints the median of the rounds' medians in microseconds, with all on one core and with the scheduler choosing.
"""

from __future__ import annotations

import os
import statistics
import sys

from pyproc.cli.commands.bench import CALLS, _bytes
from pyproc.cli.pingpong import PingPong


def median(rounds: int) -> float:
    """Microseconds of a round trip."""
    with PingPong(*_bytes()) as floor:
        floor.measure(CALLS)
        return statistics.median(statistics.median(floor.measure(CALLS)) for _ in range(rounds)) / 1000


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(free)})
    print(f"pinned {median(rounds):.2f} us")
    os.sched_setaffinity(0, free)
    print(f"free   {median(rounds):.2f} us")
