"""A worker's ends of its channel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from pyproc_worker.channel import Channel


class Ends:
    def __init__(self) -> None:
        self.inner_requests, self.requests = os.pipe()
        self.answers, self.inner_answers = os.pipe()
        self.greeting, greeting = socket.socketpair()
        self.channel = Channel(self.inner_requests, self.inner_answers, greeting.detach())


def test_a_busy_end_polls_for_each_request() -> None:
    inner, requests = os.pipe()
    channel = Channel(inner, -1, -1, busy=30.0)
    channel.lively = True
    for _ in range(200):
        os.write(requests, b"x")
        channel.look_out()
        assert channel.lively and channel.receive() == b"x"
    os.close(inner)
    os.close(requests)


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


def test_looking_out_ends_with_a_request_and_without_one(ends: Ends) -> None:
    ends.channel.greet(b"ready")
    for lively in (True, False):
        ends.channel.lively = lively
        ends.channel.look_out()
        assert not ends.channel.lively  # nothing came, and then what was there at once
        os.write(ends.requests, b"request")
