"""The calls outstanding on one worker, in the order in which they were sent. Pure: no I/O, no clock.

    sent ──▶ [ first | sent ahead ... ] ──answered──▶ over         the first one runs, or is about to
                          │     ├──handed back──▶ waits again      the worker met it while a function ran, and did not begin it
                          │     └──taken back───▶ waits again      the worker had not read it (`Channel.taken_back`)
                          └──lost──▶ the first may have run and is lost; the others have not begun, and wait again

A worker answers in order, and flushes each answer before it begins the next call. So what is unanswered behind the first one
has not begun, whatever became of the worker; and an answer of another call than the first is a breach, unless it says that the call
was not begun.

A function may look at its channel while it runs (`check_cancelled`, `cancel_event`, `async def`) and meets there what was sent
ahead, which could not be taken back from then on. The worker hands that back at once, and nothing is sent ahead behind a function of
which that is known (`looking`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from pyproc_wire.errors import RemoteProtocolError


class Outstanding(Protocol):
    """`id` and `frame` are those of the request; `whole`: it is one packet, which can be taken back."""

    id: int
    method: str
    frame: bytes
    whole: bool


C = TypeVar("C", bound=Outstanding)


class Lane(Generic[C]):
    """At most `limit` calls outstanding, and `quota` more of them ever. `looking`: the methods behind which nothing is sent ahead."""

    __slots__ = ("calls", "limit", "looking", "quota")

    def __init__(self, limit: int, quota: float, looking: set[str]) -> None:
        self.limit = limit
        self.quota = quota
        self.looking = looking
        self.calls: deque[C] = deque()

    @property
    def room(self) -> bool:
        """Whether one more may be sent."""
        calls = self.calls
        return self.quota > 0 and (
            not calls or (len(calls) < self.limit and calls[0].whole and calls[-1].method not in self.looking)
        )

    def sent(self, call: C) -> None:
        """`call` is on its way, behind all others."""
        self.calls.append(call)
        self.quota -= 1

    def answered(self, id: int, code: str = "") -> tuple[C, bool]:
        """The call that the worker answered, with the error `code` if there is one; whether that settles it, as it was the first one.
        Else it was handed back. Raises RemoteProtocolError for an answer out of turn."""
        calls = self.calls
        if calls and calls[0].id == id:
            return calls.popleft(), True
        for call in calls:
            if call.id == id and code == "cancelled":
                self.looking.add(calls[0].method)
                self._returned(call)
                return call, False
        raise RemoteProtocolError(f"answer to call {id} comes out of turn", id=id)

    def taken_back(self, frames: Iterable[bytes]) -> list[C]:
        """The calls but the first whose requests these are: the worker will not read them."""
        wanted = set(frames)
        taken = [call for call in islice(self.calls, 1, None) if call.frame in wanted]
        for call in taken:
            self._returned(call)
        return taken

    def lost(self) -> tuple[C | None, list[C]]:
        """The worker ended, and everything that it wrote was read: the call that is lost, and those that wait again."""
        first = self.calls.popleft() if self.calls else None
        others = list(self.calls)
        self.calls.clear()
        return first, others

    def _returned(self, call: C) -> None:
        self.calls.remove(call)
        self.quota += 1


L = TypeVar("L", bound=Lane[Any])


def roomiest(lanes: Iterable[L]) -> L | None:
    """Of those that have room the one with the fewest calls outstanding, the first of them; None where none has any."""
    best: L | None = None
    for lane in lanes:
        if lane.room and (best is None or len(lane.calls) < len(best.calls)):
            best = lane
    return best
