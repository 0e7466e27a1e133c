"""The ledger of a pool: accepted = ok + failed + deadline + cancelled + lost + in_flight, at every moment (contract, section 8).

A call is counted twice: when it is accepted, and once under what it became. `in_flight` is the difference and not a third
counter, so that the equation cannot be broken. An increment of an attribute is not interrupted by another thread: the
interpreter changes threads at calls and at backward jumps only.

    an idle worker ──────────────▶ accepted with its begin ──▶ ok | failed | deadline | cancelled | lost
    none, and room in the queue ─▶ accepted as it joins it ──▶ the same; `failed` where the pool ends meanwhile
    else, or not a valid call ───▶ rejected: never accepted
"""

from __future__ import annotations

import threading

from pyproc.errors import CallError, PyprocError

OUTCOMES = ("ok", "failed", "deadline", "cancelled", "lost")


class Ledger:
    """Counters of one pool."""

    __slots__ = ("_lock", "_rejected", "accepted", *OUTCOMES)

    def __init__(self) -> None:
        self.accepted = 0
        self.ok = self.failed = self.deadline = self.cancelled = self.lost = 0
        self._rejected: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[str, int]:
        """The six counts and `in_flight`. What is finished is read first: a call that ends meanwhile is in flight still."""
        finished = {name: getattr(self, name) for name in OUTCOMES}
        accepted = self.accepted
        return {"accepted": accepted, **finished, "in_flight": accepted - sum(finished.values())}

    def count(self, code: str) -> None:
        """An accepted call ended with the error `code`: the bucket of contract section 10."""
        if code == "cancelled":
            self.cancelled += 1
        elif code == "deadline_exceeded":
            self.deadline += 1
        elif code == "worker_lost":
            self.lost += 1
        else:
            self.failed += 1

    def reject(self, error: PyprocError) -> None:
        """Count the refusal of a call under its code and, where it has one, its bound. A pool that was broken by anything but a
        CallError is unavailable."""
        key = "unavailable"
        if isinstance(error, CallError):
            key = f"{error.code}/{error.bound}" if error.bound else error.code
        with self._lock:
            self._rejected[key] = self._rejected.get(key, 0) + 1

    @property
    def rejected(self) -> dict[str, int]:
        """Code or code/bound -> calls that were refused."""
        with self._lock:
            return dict(self._rejected)
