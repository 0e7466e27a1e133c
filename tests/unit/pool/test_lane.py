"""The calls outstanding on one worker: what may be sent, what an answer settles, what is handed or taken back, what a death loses."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyproc.pool.lane import Lane, roomiest
from pyproc_wire.errors import RemoteProtocolError


@dataclasses.dataclass(eq=False)
class Call:
    id: int
    method: str = "f"
    whole: bool = True

    @property
    def frame(self) -> bytes:
        return b"%d" % self.id


def lane_of(*calls: Call, limit: int = 3, quota: float = math.inf, looking: set[str] | None = None) -> Lane[Call]:
    lane: Lane[Call] = Lane(limit, quota, set() if looking is None else looking)
    for call in calls:
        lane.sent(call)
    return lane


@pytest.mark.parametrize(("calls", "options", "room"), [
    ([], {}, True),
    ([], {"quota": 0}, False),
    ([Call(1)], {}, True),
    ([Call(1)], {"limit": 1}, False),
    ([Call(1)], {"quota": 1}, False),
    ([Call(1), Call(2)], {}, True),
    ([Call(1), Call(2), Call(3)], {}, False),
    ([Call(1, whole=False)], {}, False),  # longer than a packet: it could not be put back
    ([Call(1, "looks")], {"looking": {"looks"}}, False),
    ([Call(1), Call(2, "looks")], {"looking": {"looks"}}, False),
    ([], {"looking": {"looks"}}, True),
])  # fmt: skip
def test_what_may_be_sent(calls: list[Call], options: dict[str, int], room: bool) -> None:
    assert lane_of(*calls, **options).room is room  # type: ignore[arg-type]


def test_an_answer_settles_the_first_call() -> None:
    first, second = Call(1), Call(2)
    lane = lane_of(first, second)
    assert lane.answered(1) == (first, True)
    assert lane.answered(2, "cancelled") == (second, True)  # it began, and gave up
    assert not lane.calls


@pytest.mark.parametrize(("id", "code"), [(2, ""), (2, "function_failed"), (3, ""), (3, "cancelled")])
def test_an_answer_out_of_turn_is_a_breach(id: int, code: str) -> None:
    lane = lane_of(Call(1), Call(2))
    with pytest.raises(RemoteProtocolError, match="out of turn"):
        lane.answered(id, code)
    assert [call.id for call in lane.calls] == [1, 2]


def test_what_is_handed_back_names_who_looked() -> None:
    lane = lane_of(Call(1, "looks"), Call(2), Call(3), quota=3)
    call, settled = lane.answered(3, "cancelled")
    assert (call.id, settled, lane.looking, lane.quota) == (3, False, {"looks"}, 1)
    assert not lane_of(Call(4, "looks"), looking=lane.looking).room


def test_what_is_taken_back_is_never_the_first() -> None:
    lane = lane_of(Call(1), Call(2), Call(3))
    assert [call.id for call in lane.taken_back([b"3", b"1"])] == [3]
    assert [call.id for call in lane.calls] == [1, 2]


def test_a_death_loses_the_first_alone() -> None:
    first, *others = calls = [Call(1), Call(2), Call(3)]
    assert lane_of(*calls).lost() == (first, others)
    assert lane_of().lost() == (None, [])


def test_the_lane_with_the_fewest_has_the_most_room() -> None:
    full, one, two, none = lane_of(Call(1), limit=1), lane_of(Call(1)), lane_of(Call(1), Call(2)), lane_of()
    assert roomiest([full, two, one]) is one
    assert roomiest([two, one, none]) is none
    assert roomiest([full]) is None


class Served(RuleBasedStateMachine):
    """A lane beside a worker that keeps the rules: whatever happens, each call begins once, unless a death lost it."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = lane_of(limit=4)
        self.numbers = iter(range(1, 1 << 30))
        self.waiting: list[Call] = []
        self.pipe: list[Call] = []
        self.running: Call | None = None
        self.began: list[int] = []
        self.over: list[int] = []
        self.lost: list[int] = []

    @rule(method=st.sampled_from(["f", "looks"]))
    def come(self, method: str) -> None:
        self.waiting.append(Call(next(self.numbers), method))

    @precondition(lambda self: self.waiting and self.lane.room)
    @rule()
    def send(self) -> None:
        call = self.waiting.pop(0)
        self.lane.sent(call)
        self.pipe.append(call)

    @precondition(lambda self: self.pipe and self.running is None)
    @rule()
    def begin(self) -> None:
        self.running = self.pipe.pop(0)
        self.began.append(self.running.id)

    @precondition(lambda self: self.running is not None)
    @rule()
    def answer(self) -> None:
        call, settled = self.lane.answered(self.running.id)
        assert call is self.running and settled
        self.over.append(call.id)
        self.running = None

    @precondition(lambda self: self.running is not None and self.running.method == "looks" and self.pipe)
    @rule()
    def look(self) -> None:
        met = self.pipe.pop(0)
        assert self.lane.answered(met.id, "cancelled") == (met, False)
        self.waiting.insert(0, met)

    @rule()
    def take_back(self) -> None:
        frames = [call.frame for call in self.pipe]
        taken = self.lane.taken_back(frames)
        self.pipe = [call for call in self.pipe if call not in taken]  # the first is written again
        self.waiting[:0] = taken

    @rule()
    def die(self) -> None:
        first, others = self.lane.lost()
        self.pipe.clear()
        self.running = None
        self.waiting[:0] = others
        if first is not None:
            self.lost.append(first.id)

    @invariant()
    def each_is_somewhere_once(self) -> None:
        found = sorted([call.id for call in (*self.waiting, *self.lane.calls)] + self.over + self.lost)
        assert found == list(range(1, len(found) + 1))
        assert len(set(self.began)) == len(self.began)
        assert len(self.lane.calls) <= 4


TestServed = Served.TestCase
