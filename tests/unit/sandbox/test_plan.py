"""Decisions of the plan that no other test sees."""

from __future__ import annotations

from pyproc.config.options import Limits
from pyproc.sandbox import plan


def test_processes_are_bounded_only_where_nothing_else_runs_under_the_uid() -> None:
    limits = Limits(threads=4, processes=1)
    assert plan.rlimits(limits, 2, address_space=False, own_uid=True)["NPROC"] == [26, 26]
    assert "NPROC" not in plan.rlimits(limits, 2, address_space=False, own_uid=False)


def test_the_address_space_is_bounded_where_no_group_bounds_memory() -> None:
    limits = Limits(memory="256 MiB")
    assert plan.rlimits(limits, 1, address_space=True, own_uid=True)["AS"] == [256 << 20] * 2
    assert "AS" not in plan.rlimits(limits, 1, address_space=False, own_uid=True)


def test_processor_time_ends_softly_a_second_before_it_ends_hard() -> None:
    assert plan.rlimits(Limits(cpu_time="3 s"), 1, address_space=False, own_uid=True)["CPU"] == [3, 4]
