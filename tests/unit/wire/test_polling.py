"""How long an end looks out, and when it does so again."""

from __future__ import annotations

import pytest

from pyproc_wire.polling import LOOKS, SAME_CORE, look_out


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
