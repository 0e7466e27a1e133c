"""A channel's ends: what each one sees when the other goes, and that no descriptor is left."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from pyproc.link.channel import Channel


class Worker:
    """The worker's ends, in this process."""

    def __init__(self, channel: Channel) -> None:
        self.requests, self.answers, self.greeting = (os.dup(fd) for fd in channel.inner)
        channel.handed_over()

    def close(self) -> None:
        for fd in (self.requests, self.answers, self.greeting):
            if fd >= 0:
                os.close(fd)
        self.requests = self.answers = self.greeting = -1


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Worker]]:
    before = descriptors()
    channel = Channel(blocking=True)
    worker = Worker(channel)
    yield channel, worker
    worker.close()
    channel.close()
    assert descriptors() == before


def test_a_frame_goes_each_way(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    channel.send(b"question")
    assert os.read(worker.requests, 100) == b"question"
    os.write(worker.answers, b"answer")
    assert channel.receive() == b"answer"


def test_a_frame_larger_than_the_pipe_is_sent_whole(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    frame, got = os.urandom(1 << 20), bytearray()

    def read() -> None:
        while len(got) < len(frame):
            got.extend(os.read(worker.requests, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    channel.send(frame)
    reader.join()
    assert bytes(got) == frame


def test_a_read_ends_when_the_last_holder_of_the_workers_end_is_gone(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    kept = os.dup(worker.answers)
    worker.close()
    assert not channel.hung_up
    os.close(kept)
    assert channel.hung_up
    assert channel.receive() == b""


def test_a_write_to_a_worker_that_is_gone_is_no_error(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    worker.close()
    channel.send(b"nobody reads this")


def test_a_blocked_writer_is_let_go_by_drain(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    worker.close()
    writer = threading.Thread(target=channel.send, args=(bytes(1 << 18),))
    writer.start()
    poll = select.poll()
    poll.register(channel.inner[0], select.POLLIN)
    while writer.is_alive():
        poll.poll(100)
        channel.drain()
    writer.join()


def test_without_blocking_nothing_waits() -> None:
    channel = Channel(blocking=False)
    worker = Worker(channel)
    try:
        with pytest.raises(BlockingIOError):
            channel.receive()
        taken = 0
        while (now := channel.offer(bytes(65536))) > 0:
            taken += now
        assert taken >= 65536
        assert channel.offer(b"no room") == 0
    finally:
        worker.close()
        channel.close()


def test_a_closed_channel_is_an_oserror_and_never_another_file() -> None:
    channel = Channel(blocking=True)
    Worker(channel).close()
    channel.close()
    with open(os.devnull, "rb"), open(os.devnull, "rb"):  # take the numbers
        for use in (channel.receive, lambda: channel.send(b"x"), lambda: channel.offer(b"x"), lambda: channel.answers,
                    lambda: channel.requests):
            with pytest.raises(OSError, match="closed"):
                use()
    assert channel.hung_up
    channel.close()
