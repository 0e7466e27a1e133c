"""The ledger of a pool: accepted = ok + failed + deadline + cancelled + lost + in_flight, at every moment (contract, section 8).

A call is counted twice: when it is accepted, and once under what it became. `in_flight` is the difference and not a third
counter, so that the equation cannot be broken. An increment of an attribute is not interrupted by another thread: the
interpreter changes threads at calls and at backward jumps only.
"""

from __future__ import annotations

OUTCOMES = ("ok", "failed", "deadline", "cancelled", "lost")


class Ledger:
    """Counters of one pool."""

    __slots__ = ("accepted", *OUTCOMES)

    def __init__(self) -> None:
        self.accepted = 0
        self.ok = self.failed = self.deadline = self.cancelled = self.lost = 0

    def read(self) -> dict[str, int]:
        """The six counts and `in_flight`. What is finished is read first: a call that ends meanwhile is in flight still."""
        finished = {name: getattr(self, name) for name in OUTCOMES}
        accepted = self.accepted
        return {"accepted": accepted, **finished, "in_flight": accepted - sum(finished.values())}
