"""The ledger: each code has one bucket, and what is refused is in none of them."""

from __future__ import annotations

import pytest

from pyproc import ConfigError, ResourceExhausted
from pyproc.errors import CLASSES
from pyproc.pool.ledger import OUTCOMES, Ledger

BUCKETS = {"cancelled": "cancelled", "deadline_exceeded": "deadline", "worker_lost": "lost"}  # all others are failed


@pytest.mark.parametrize("code", sorted(CLASSES))
def test_each_code_has_one_bucket(code: str) -> None:
    ledger = Ledger()
    ledger.accepted = 3
    ledger.count(code)
    expected = dict.fromkeys(OUTCOMES, 0) | {BUCKETS.get(code, "failed"): 1}
    assert ledger.read() == {"accepted": 3, **expected, "in_flight": 2}


def test_refusals_are_counted_by_code_and_bound_and_never_accepted() -> None:
    ledger = Ledger()
    for bound in ("queue", "queue", None):
        ledger.reject(ResourceExhausted("no", bound=bound))
    ledger.reject(ConfigError("broken"))
    assert ledger.rejected == {"resource_exhausted/queue": 2, "resource_exhausted": 1, "unavailable": 1}
    assert ledger.read()["accepted"] == 0
