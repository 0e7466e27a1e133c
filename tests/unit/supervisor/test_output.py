"""What a worker writes: put to its call, cut, counted, and the end of one that does not stop."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest

from pyproc.supervisor.loop import Loop
from pyproc.supervisor.output import KILL_FACTOR, Output, printable

LIMIT = 100


class Pipes:
    """A worker with two pipes, and what was ended."""

    def __init__(self) -> None:
        self.out, self.write = os.pipe()
        self.err, self.write_error = os.pipe()
        os.set_blocking(self.out, False)
        os.set_blocking(self.err, False)
        self.worker: Any = SimpleNamespace(outputs=(self.out, self.err), calls=1, spoken=0, spoken_call=0, name="w1")
        self.ended: list[str] = []
        self.loop = Loop()
        self.output = Output("pool", LIMIT, self.loop, lambda worker, reason: self.ended.append(reason))

    def say(self, text: bytes) -> None:
        os.write(self.write, text)
        self.output.drain(self.worker)

    def close(self) -> None:
        self.loop.close()
        for fd in (self.out, self.write, self.err, self.write_error):
            os.close(fd)


@pytest.fixture
def pipes(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "pyproc")
    made = Pipes()
    yield made
    made.close()


def test_both_streams_are_logged_with_their_call(pipes: Pipes, caplog: pytest.LogCaptureFixture) -> None:
    os.write(pipes.write_error, b"oops\n")
    pipes.say(b"hello\nworld\n")
    assert [record.getMessage() for record in caplog.records] == [
        "output pool=pool worker=w1 call=1 stream=stdout text=hello\\nworld",
        "output pool=pool worker=w1 call=1 stream=stderr text=oops"]


def test_what_is_beyond_the_limit_of_a_call_is_dropped_and_the_next_call_has_its_own(pipes: Pipes) -> None:
    pipes.say(b"x" * (LIMIT + 7))
    assert pipes.output.dropped == 7
    pipes.worker.calls = 2
    pipes.say(b"x" * LIMIT)
    assert pipes.output.dropped == 7 and pipes.ended == []


def test_a_flood_ends_the_worker(pipes: Pipes) -> None:
    pipes.say(b"x" * (KILL_FACTOR * LIMIT))
    assert pipes.ended == []
    pipes.say(b"x")
    assert pipes.ended == ["output_limit"]


def test_one_drain_takes_more_than_one_read(pipes: Pipes) -> None:
    for _ in range(8):
        os.write(pipes.write, b"x" * 4096)
    pipes.output.drain(pipes.worker)
    with pytest.raises(BlockingIOError):
        os.read(pipes.out, 1)


def test_an_order_for_a_worker_that_was_buried_reads_nothing(pipes: Pipes) -> None:
    os.write(pipes.write, b"x")
    pipes.worker.outputs = ()
    pipes.output.drain_one(pipes.worker, pipes.out)
    assert os.read(pipes.out, 9) == b"x"


@pytest.mark.parametrize("text", ["\x1b[31mred", "line\nline", "\u202eabc", "nul\0", "\udc80"])
def test_foreign_text_becomes_one_line_of_ascii(text: str) -> None:
    shown = printable(text)
    assert shown.isascii() and shown.isprintable()


def test_the_end_of_a_line_that_comes_alone_is_no_record(pipes: Pipes, caplog: pytest.LogCaptureFixture) -> None:
    pipes.say(b"a\nc")
    pipes.say(b"\n")  # as `print("a\nc")` writes it
    assert [record.getMessage() for record in caplog.records] == ["output pool=pool worker=w1 call=1 stream=stdout text=a\\nc"]
