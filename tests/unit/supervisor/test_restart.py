"""When a worker is started again: a table of deaths in time and the decision after the last one."""

from __future__ import annotations

import pytest

from pyproc.supervisor.restart import FIRST_DELAY, LONGEST_DELAY, UNCOUNTED, Restart

BROKEN = None
DECISIONS = [  # intensity, times of death within a period of 60 s -> seconds to wait after the last one, without jitter
    (5, [0], 0.0),
    (5, [0, 1], FIRST_DELAY * 4 / 2),
    (5, [0, 1, 2], FIRST_DELAY * 8 / 2),
    (5, [0, 1, 2, 3, 4], FIRST_DELAY * 32 / 2),
    (5, [0, 1, 2, 3, 4, 5], BROKEN),
    (5, [0, 1, 2, 3, 4, 61], FIRST_DELAY * 32 / 2),
    (5, [0, 61], 0.0),
    (5, [0, 60], FIRST_DELAY * 4 / 2),
    (1, [0, 1], BROKEN),
    (0, [0], BROKEN),
    (20, list(range(12)), LONGEST_DELAY / 2),
]


@pytest.mark.parametrize(("intensity", "times", "delay"), DECISIONS)
def test_deaths_in_time_decide_the_next_start(intensity: int, times: list[int], delay: float | None) -> None:
    restart = Restart(intensity, 60.0)
    assert [restart.died("oom", when, 0.0) for when in times][-1] == delay


@pytest.mark.parametrize("reason", sorted(UNCOUNTED))
def test_deaths_that_we_ordered_never_break_the_pool(reason: str) -> None:
    restart = Restart(1, 60.0)
    assert [restart.died(reason, 0.0, 0.5) for _ in range(10)] == [0.0] * 10
    assert restart.died("oom", 0.0, 0.0) == 0.0


def test_a_broken_pool_counts_anew_after_its_period() -> None:
    restart = Restart(1, 60.0)
    assert [restart.died("oom", when, 0.0) for when in (0.0, 1.0)] == [0.0, BROKEN]
    assert restart.broken_until == 61.0
    assert restart.died("oom", 61.0, 0.0) == 0.0


def test_jitter_spreads_a_delay_over_its_upper_half() -> None:
    delays = []
    for jitter in (0.0, 0.5, 1.0):
        restart = Restart(5, 60.0)
        restart.died("oom", 0.0, jitter)
        delays.append(restart.died("oom", 0.0, jitter))
    assert delays == pytest.approx([0.02, 0.03, 0.04])
