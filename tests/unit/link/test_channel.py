"""A channel's ends: what each one sees when the other goes, and that no descriptor is left."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from pyproc.link.channel import NO_ANSWER, Channel


class Worker:
    """The worker's ends, in this process. `ended` is what the supervisor says of it."""

    def __init__(self, channel: Channel) -> None:
        self.answers, self.requests, self.greeting = (os.dup(fd) for fd in channel.inner)
        channel.handed_over()
        self.finished = threading.Event()
        self.ended: Callable[[], bool] = self.finished.is_set

    def close(self) -> None:
        for fd in (self.answers, self.requests, self.greeting):
            if fd >= 0:
                os.close(fd)
        self.answers = self.requests = self.greeting = -1


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_busy_end_polls_for_each_answer() -> None:
    channel = Channel(busy=30.0)
    worker = Worker(channel)
    channel.may_look_out(alone=False)
    for _ in range(200):
        assert channel.lively
        os.write(worker.answers, b"x")
        channel.look_out()
        assert channel.receive(worker.ended) == b"x"
    channel.close()
    worker.close()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Worker]]:
    before = descriptors()
    channel = Channel()
    worker = Worker(channel)
    yield channel, worker
    worker.close()
    channel.close()
    assert descriptors() == before


def test_a_frame_goes_each_way(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    channel.send(b"question", worker.ended)
    assert os.read(worker.requests, 100) == b"question"
    os.write(worker.answers, b"answer")
    assert channel.receive(worker.ended) == b"answer"


def test_a_frame_larger_than_the_pipe_is_sent_whole(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    frame, got = os.urandom(1 << 20), bytearray()

    def read() -> None:
        while len(got) < len(frame):
            got.extend(os.read(worker.requests, 65536))

    reader = threading.Thread(target=read)
    reader.start()
    channel.send(frame, worker.ended)
    reader.join()
    assert bytes(got) == frame


def test_a_read_ends_when_the_last_holder_of_the_workers_end_is_gone(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    kept = os.dup(worker.answers)
    worker.close()
    assert not channel.hung_up
    os.close(kept)
    assert channel.hung_up
    assert channel.receive(worker.ended) == b""


def test_what_a_dead_worker_said_is_read_before_its_end(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    os.write(worker.answers, b"answer")
    worker.close()
    worker.finished.set()
    assert channel.release()
    assert channel.receive(worker.ended) == b"answer"
    assert channel.receive(worker.ended) == b""


def test_a_write_to_a_worker_that_is_gone_is_no_signal(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    worker.close()
    assert os.write(channel.requests, b"nobody reads this") == 17  # with a broken pipe: BrokenPipeError, or SIGPIPE


def test_who_waits_for_room_is_let_go(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    raised: list[BaseException] = []

    def write() -> None:
        try:
            channel.send(bytes(1 << 24), worker.ended)
        except OSError as error:
            raised.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    while select.select([], [channel.requests], [], 0)[1]:  # it fills the pipe
        pass
    worker.finished.set()
    assert channel.release()
    writer.join(10)
    assert not writer.is_alive() and isinstance(raised[0], BrokenPipeError)


def test_who_waits_for_an_answer_is_let_go_although_something_holds_the_workers_end(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(channel.receive(worker.ended)))
    reader.start()
    worker.finished.set()
    assert channel.release()  # before or after the wait has begun
    reader.join(10)
    assert got == [NO_ANSWER]
    with pytest.raises(BrokenPipeError):
        channel.receive(worker.ended)


def test_what_the_inside_does_to_its_flags_holds_nobody_up(ends: tuple[Channel, Worker]) -> None:
    """The worker's reading end and ours are one open file: it clears O_NONBLOCK between our setting it and our reading."""
    channel, worker = ends
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            os.set_blocking(worker.requests, True)

    flipper = threading.Thread(target=flip)
    flipper.start()
    letter = threading.Thread(target=lambda: [channel.release() for _ in range(2000)], daemon=True)
    letter.start()
    letter.join(20)
    stop.set()
    flipper.join()
    held = letter.is_alive()
    os.write(channel.requests, b"x")  # let it end either way
    assert not held


def test_a_pipe_that_is_full_needs_no_more(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    os.set_blocking(worker.answers, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(worker.answers, bytes(65536))
    assert channel.release()
    assert channel.receive(worker.ended)


def test_without_waiting_a_read_says_that_nothing_has_arrived(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    channel.set_waiting(waits=False)
    with pytest.raises(BlockingIOError):
        channel.receive(worker.ended)


def test_looking_out_ends_with_an_answer_and_without_one(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    for lively in (True, False):
        channel.lively = lively
        channel.look_out()
        assert not channel.lively  # nothing came, and then what was there at once
        os.write(worker.answers, b"answer")


def test_a_closed_channel_is_never_another_file(ends: tuple[Channel, Worker]) -> None:
    channel, worker = ends
    worker.close()
    channel.close()
    with open(os.devnull, "rb"), open(os.devnull, "rb"):  # take the numbers
        for use in (lambda: channel.receive(worker.ended), lambda: channel.send(b"x", worker.ended)):
            with pytest.raises(OSError, match="descriptor"):
                use()
    assert not channel.release()


def test_a_channel_that_nobody_holds_closes_itself() -> None:
    before = descriptors()
    channel = Channel()
    assert len(descriptors()) == len(before) + 8
    del channel
    assert descriptors() == before


@pytest.mark.parametrize("free", range(6))
def test_a_channel_that_cannot_be_opened_leaves_nothing(free: int) -> None:
    import resource

    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    holes = sorted(int(fd) for fd in before)
    filler = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(holes) + 1 + free, hard))
        while len(filler) < max(holes) + 1 - len(holes) + 1:  # fill the holes below
            filler.append(os.dup(0))
            if filler[-1] > max(holes):
                os.close(filler.pop())
                break
        with pytest.raises(OSError, match="open files"):
            Channel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)
    assert descriptors() == before


def test_what_the_other_end_has_not_read_is_taken_back_request_by_request() -> None:
    channel = Channel(ahead=3)
    worker = Worker(channel)
    try:
        for frame in (b"first", b"second", b"third"):
            os.write(channel.requests, frame)
        assert os.read(worker.requests, 65536) == b"first"
        assert channel.taken_back() == [b"second", b"third"]
        assert channel.taken_back() == []
        os.write(channel.requests, b"fourth")
        assert os.read(worker.requests, 65536) == b"fourth"
    finally:
        channel.close()
        worker.close()
    assert channel.taken_back() == []


@pytest.mark.parametrize("ahead", [16, 100, 255])
def test_the_pipe_holds_as_many_requests_as_are_sent_ahead(ahead: int) -> None:
    channel = Channel(ahead=ahead)
    worker = Worker(channel)
    try:
        for number in range(ahead):
            os.write(channel.requests, b"%d" % number)
        assert channel.taken_back() == [b"%d" % number for number in range(ahead)]
    finally:
        channel.close()
        worker.close()
