"""When to start a worker again: intensity, period and jittered back-off. Pure: deaths and time in, decision out.

As OTP's supervisor: more than `intensity` deaths within `period` seconds break the pool. Deaths that the supervisor ordered for
one call's sake (deadline, cancelled, output_limit) do not count.

    serving ──too many deaths──▶ broken ──a period──▶ trying: one worker more ──it came back from a call──▶ serving
                                   ▲────────────a death that counts────┘
"""

from __future__ import annotations

from collections import deque

UNCOUNTED = frozenset({"deadline", "cancelled", "output_limit", "retired", "operator", "shutdown"})
FIRST_DELAY, LONGEST_DELAY = 0.01, 1.0  # seconds; the first deaths are replaced at once


class Restart:
    """Remembers the deaths that count."""

    def __init__(self, intensity: int, period: float) -> None:
        self.intensity = intensity
        self.period = period
        self._deaths: deque[float] = deque(maxlen=intensity + 1)
        self.trying = False

    def died(self, reason: str, now: float, jitter: float) -> float | None:
        """Seconds to wait before the next start (`jitter` in 0..1 spreads it), or None when the pool is broken."""
        if reason in UNCOUNTED:
            return 0.0
        if self.trying:
            self.trying = False
            return None
        self._deaths.append(now)
        while self._deaths and now - self._deaths[0] > self.period:
            self._deaths.popleft()
        if len(self._deaths) > self.intensity:
            self._deaths.clear()
            return None
        if len(self._deaths) <= 1:
            return 0.0
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** len(self._deaths)) * (0.5 + jitter / 2)

    def try_one(self, workers: int, living: int) -> int:
        """The period is over: of `workers`, of which `living` are left, how many to have now."""
        self.trying = living < workers
        return min(workers, living + 1)

    def proven(self) -> None:
        """The worker that was tried came back from a call: deaths count anew."""
        self.trying = False
