"""How long an end looks out, and when it does so again."""

from __future__ import annotations

import pytest

from pyproc_wire.polling import LOOKS, SAME_CORE, busily, look_out


@pytest.mark.parametrize(("arrives", "again"), [
    (0, False), (SAME_CORE, False), (SAME_CORE + 1, True), (LOOKS - 1, True), (LOOKS, False),
])  # fmt: skip
def test_an_end_looks_out_again_if_the_message_came_from_another_core(arrives: int, again: bool) -> None:
    looks = 0

    def give_way() -> None:
        nonlocal looks
        looks += 1

    assert look_out(lambda timeout: timeout == 0 and looks == arrives, give_way) is again
    assert looks == arrives


@pytest.mark.parametrize(("arrives", "looks"), [(1, 1), (3, 3), (99, 5)])
def test_a_busy_end_looks_until_the_message_is_there_or_its_time_is_over(arrives: int, looks: int) -> None:
    seen, now = 0, 0.0

    def arrived(timeout: int) -> bool:
        nonlocal seen, now
        assert timeout == 0
        seen, now = seen + 1, now + 0.25
        return seen == arrives

    given_way = []
    busily(arrived, lambda: given_way.append(seen), lambda: now, 1.25)
    assert seen == looks
    assert given_way == list(range(1, looks))
