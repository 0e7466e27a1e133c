"""The door of a zygote, step by step: who asks for what, and what each phase answers."""

from __future__ import annotations

import errno

import pytest

from pyproc.sandbox.derive import FORK_FLAGS
from pyproc.supervisor.door import ASKERS_MAX, CONFINING, Door

ZYGOTE, CHILD, OTHER, OUTSIDE = 100, 101, 102, 1
NEWUSER = 0x10000000
YES, NO = 0, errno.EPERM
FORK = ("clone", ZYGOTE, FORK_FLAGS)


def ask(door: Door, name: str, pid: int, argument: int = 0, parent: int | None = None) -> int:
    known = {ZYGOTE: OUTSIDE, CHILD: ZYGOTE, OTHER: ZYGOTE}
    return door.decide(pid, known[pid] if parent is None else parent, pid - 99, name, argument)


def opened() -> Door:
    door = Door()
    door.zygote = ZYGOTE
    door.open_fork()
    return door


def test_a_closed_door_grants_nothing() -> None:
    door = Door()
    door.zygote = ZYGOTE
    assert [ask(door, *FORK)] + [ask(door, name, CHILD) for name in sorted(CONFINING)] == [NO] * (1 + len(CONFINING))
    assert not door.is_open


def test_an_open_fork_is_granted_once_to_the_zygote_and_its_steps_to_the_child() -> None:
    door = opened()
    assert ask(door, "clone", CHILD, FORK_FLAGS) == NO
    assert [ask(door, *FORK), ask(door, *FORK)] == [YES, NO]
    assert [ask(door, name, CHILD) for name in sorted(CONFINING)] == [YES] * len(CONFINING)
    assert door.child == CHILD and door.is_open


@pytest.mark.parametrize("flags", [FORK_FLAGS | NEWUSER, FORK_FLAGS | 0x8000, 0x11, FORK_FLAGS | 0x10000])
def test_a_fork_with_other_flags_is_refused_and_the_right_one_still_granted(flags: int) -> None:
    door = opened()
    assert ask(door, "clone", ZYGOTE, flags) == NO
    assert ask(door, *FORK) == YES


def test_only_the_first_child_of_the_zygote_is_the_one() -> None:
    door = opened()
    assert ask(door, *FORK) == YES
    assert ask(door, "unshare", OTHER, NEWUSER, parent=CHILD) == NO
    assert ask(door, "unshare", CHILD, NEWUSER) == YES
    assert ask(door, "unshare", OTHER, NEWUSER) == NO


def test_where_forks_are_not_asked_the_childs_first_step_uses_the_order_up() -> None:
    door = opened()
    assert ask(door, "setsid", CHILD) == YES
    assert ask(door, *FORK) == NO


@pytest.mark.parametrize("name", sorted(CONFINING))
def test_the_zygote_never_confines_itself(name: str) -> None:
    door = opened()
    assert ask(door, name, ZYGOTE) == NO


@pytest.mark.parametrize("name", sorted(CONFINING))
def test_a_worker_that_serves_is_refused_its_steps(name: str) -> None:
    door = opened()
    ask(door, *FORK)
    ask(door, "unshare", CHILD)
    door.close()
    assert ask(door, name, CHILD) == NO
    assert not door.is_open


@pytest.mark.parametrize("name", ["landlock_create_ruleset", "landlock_add_rule", "capset", "clone3", ""])
def test_what_is_no_step_is_refused_to_the_child_too(name: str) -> None:
    door = opened()
    ask(door, *FORK)
    assert ask(door, name, CHILD) == NO


@pytest.mark.parametrize(("argument", "answer"), [(CHILD - 99, YES), (CHILD - 99 | 1 << 32, YES), (1, NO), (0, NO)])
def test_a_signal_is_for_oneself_only(argument: int, answer: int) -> None:
    assert ask(Door(), "tgkill", CHILD, argument) == answer


def test_refusals_are_counted_by_process() -> None:
    door = opened()
    for _ in range(3):
        ask(door, "capset", OTHER)
    ask(door, "capset", CHILD)
    assert door.refused == {OTHER: 3, CHILD: 1}


def test_processes_that_asked_once_do_not_fill_the_memory() -> None:
    door = Door()
    for pid in range(10_000):
        assert door.decide(pid, OUTSIDE, 1, "clone", 0) == NO
    assert len(door.refused) == ASKERS_MAX and 9_999 in door.refused
