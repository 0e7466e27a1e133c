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


def broken() -> Restart:
    restart = Restart(1, 60.0)
    assert [restart.died("oom", when, 0.0) for when in (0.0, 1.0)] == [0.0, BROKEN]
    return restart


def test_after_its_period_a_broken_pool_tries_one_worker_more_than_live() -> None:
    restart = broken()
    assert [restart.try_one(8, living) for living in (0, 2, 7, 8)] == [1, 3, 8, 8]


def test_a_death_breaks_a_pool_on_trial_again() -> None:
    restart = broken()
    restart.try_one(8, 0)
    assert restart.died("deadline", 62.0, 0.0) == 0.0
    assert restart.trying
    assert restart.died("oom", 62.0, 0.0) is BROKEN
    assert not restart.trying


def test_a_worker_that_answered_ends_the_trial_and_deaths_count_anew() -> None:
    restart = broken()
    restart.try_one(8, 0)
    restart.proven()
    assert not restart.trying
    assert restart.died("oom", 62.0, 0.0) == 0.0


def test_there_is_no_trial_where_nobody_is_missing() -> None:
    restart = broken()
    restart.try_one(8, 8)
    assert not restart.trying


def test_jitter_spreads_a_delay_over_its_upper_half() -> None:
    delays = []
    for jitter in (0.0, 0.5, 1.0):
        restart = Restart(5, 60.0)
        restart.died("oom", 0.0, jitter)
        delays.append(restart.died("oom", 0.0, jitter))
    assert delays == pytest.approx([0.02, 0.03, 0.04])
