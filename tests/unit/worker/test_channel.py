"""A worker's ends of its channel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from pyproc_worker.channel import LOOKS, SAME_CORE, Channel


class Ends:
    def __init__(self) -> None:
        self.inner_requests, self.requests = os.pipe()
        self.answers, self.inner_answers = os.pipe()
        self.greeting, greeting = socket.socketpair()
        self.channel = Channel(self.inner_requests, self.inner_answers, greeting.detach())


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for fd in (made.requests, made.inner_requests, made.answers, made.inner_answers):
        os.close(fd)
    made.greeting.close()


def test_the_greeting_goes_over_the_socket_which_is_closed_then(ends: Ends) -> None:
    ends.channel.greet(b"ready")
    assert ends.greeting.recv(100) == b"ready"
    assert ends.greeting.recv(100) == b""


def test_a_frame_goes_each_way_and_waiting_tells_of_it(ends: Ends) -> None:
    ends.channel.greet(b"ready")
    assert not ends.channel.waiting
    os.write(ends.requests, b"request")
    assert ends.channel.waiting
    assert ends.channel.receive() == b"request"
    ends.channel.send(b"answer")
    assert os.read(ends.answers, 100) == b"answer"


@pytest.mark.parametrize(("arrives", "lively"), [
    (0, False), (SAME_CORE, False), (SAME_CORE + 1, True), (LOOKS - 1, True), (LOOKS, False),
])  # fmt: skip
def test_who_looks_out_does_so_again_if_the_request_came_from_another_core(
    ends: Ends, arrives: int, lively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.channel.greet(b"ready")
    looks = 0

    def give_way() -> None:
        nonlocal looks
        looks += 1
        if looks == arrives:
            os.write(ends.requests, b"request")

    if not arrives:
        os.write(ends.requests, b"request")
    monkeypatch.setattr(os, "sched_yield", give_way)
    ends.channel.look_out()
    assert (ends.channel.lively, looks) == (lively, arrives)
