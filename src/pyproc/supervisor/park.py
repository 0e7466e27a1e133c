"""How many workers to park: forked, attested, and lent to nobody yet. Pure: what happened in, a number out.

    a call waited for a start while it might have run ──▶ one more, at most `most`
    none was down to its last parked worker for PERIOD_SECONDS ──▶ one less, at least FIRST

The most is 8 and 4 for each worker, and less where memory or descriptors are short: a worker that is parked holds its private
pages and its descriptors, as an idle one does.
"""

from __future__ import annotations

FIRST = 2  # parked from the beginning, as nothing is known then: the next call's, while the one after it is forked
SPARE, PER_WORKER = 8, 4
PERIOD_SECONDS = 10.0  # between two looks at what was not used
PRIVATE_BYTES = 16 << 20  # counted for a parked worker; measured are 1.1 MiB of its own, and a table of pages
MEMORY_SHARE = 4  # a quarter of the available memory of the machine may be parked
DESCRIPTORS = 8  # of a worker: six of its channel, arenas and output, a pidfd, and one more while it starts
DESCRIPTORS_SHARE = 2  # half of what `ulimit -n` leaves; the rest is the program's own


def bound(workers: int) -> int:
    """The most that a pool of `workers` parks on any machine, for what is planned before it is known how much is free."""
    return SPARE + PER_WORKER * workers


def most(workers: int, *, available: int, memory: int, descriptors: int) -> int:
    """The bound for a pool of `workers`, on a machine with `available` bytes, `memory` of them allowed to each worker, in a process
    that may open `descriptors` more."""
    room = available // MEMORY_SHARE // min(memory, PRIVATE_BYTES)
    spare = descriptors // DESCRIPTORS_SHARE // DESCRIPTORS - workers
    return max(0, min(bound(workers), room, spare))


class Park:
    """`size`: the number to park now, 0 to `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = min(FIRST, most)

    def missed(self) -> None:
        """A call that might have run waited for a start."""
        self.size = min(self.most, self.size + 1)

    def passed(self, unused: int) -> bool:
        """A period is over, in which `unused` workers stayed parked throughout; whether one of them is to end."""
        if unused <= 1 or self.size <= min(FIRST, self.most):
            return False
        self.size -= 1
        return True

    def short(self, parked: int) -> None:
        """Nothing more can be parked than those that are: the machine has run out of something."""
        self.size = max(0, min(self.size, parked))
