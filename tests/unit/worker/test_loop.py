"""The worker's loop: answers, failures, cancellation, streams, async functions, and what ends it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pyproc_wire.connection import CallerConnection, Failed, Part, Succeeded, WorkerConnection
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue
from pyproc_worker import loop
from pyproc_worker.call import Cancelled, check_cancelled, current_call
from pyproc_worker.failure import PublicError
from pyproc_worker.registry import BadBody, Registry

Open = Callable[..., Any]


def echo(req: Any) -> Any:
    return req


def test_ready_tells_functions_and_details(open_channel: Open) -> None:
    channel = open_channel(echo)
    assert set(channel.ready.functions) == {"health", "echo"}
    assert channel.ready.details == {"pid": 7}


def test_calls_are_answered_in_turn(open_channel: Open) -> None:
    channel = open_channel(echo)
    assert [channel.call("echo", body) for body in (1, None, [1.5], {"a": b"x"}, (1, 2))] == [1, None, [1.5], {"a": b"x"}, (1, 2)]


def test_requests_in_one_chunk_are_all_answered(open_channel: Open) -> None:
    channel = open_channel(echo)
    frames = [channel.connection.request(number, "echo", number) for number in (101, 102, 103)]
    channel.socket.sendall(b"".join(frames))
    assert [channel.value(channel.take()) for _ in frames] == [101, 102, 103]


def test_a_large_body_arrives_whole(open_channel: Open) -> None:
    assert open_channel(echo).call("echo", b"x" * 300_000) == b"x" * 300_000


def test_health(open_channel: Open) -> None:
    channel = open_channel(echo)
    channel.call("echo", 1)
    health = channel.call("health")
    assert health["status"] == "healthy" and health["pid"] == os.getpid() and health["requests_handled"] == 2
    assert 0 <= health["uptime"] < 60


def test_unknown_method_is_not_found(open_channel: Open) -> None:
    channel = open_channel(echo)
    for name in ("missing", "echo.__globals__", "", "Echo"):
        assert channel.fail(name).code == "not_found"


def test_a_wrong_body_names_its_path(open_channel: Open) -> None:
    def area(width: float, height: float) -> float:
        return width * height

    failed = open_channel(area).fail("area", {"width": 1.0, "height": "2"})
    assert (failed.code, failed.path, failed.public) == ("invalid_argument", "$.height", True)
    assert failed.error.endswith("at $.height")


def test_a_secret_in_an_exception_stays_inside(open_channel: Open) -> None:
    def leak() -> None:
        local = "SECRET"
        error = ExceptionGroup("SECRET", [ValueError(local)])
        error.add_note("SECRET")
        raise error from KeyError("SECRET")

    failed = open_channel(leak).fail("leak")
    assert (failed.code, failed.error, failed.public) == ("function_failed", "Processing failed", False)
    assert "SECRET" in failed.report.traceback and failed.report.type == "ExceptionGroup"


def test_public_text_reaches_the_caller_and_nothing_else(open_channel: Open) -> None:
    class Refused(Exception):
        pass

    def refuse(req: str) -> None:
        raise (Refused if req == "listed" else PublicError)("not\ntoday") from ValueError("SECRET")

    registry = Registry()
    registry.add(refuse, public_errors=(Refused,))
    channel = open_channel(registry=registry)
    for kind in ("listed", "public"):
        failed = channel.fail("refuse", kind)
        assert (failed.code, failed.error, failed.public, failed.report) == ("function_failed", "not\\ntoday", True, None)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException, StopIteration, RecursionError])
def test_no_exception_ends_the_worker(open_channel: Open, kind: type[BaseException]) -> None:
    def end() -> None:
        raise kind(3)

    channel = open_channel(end, echo)
    assert channel.fail("end").error == "Processing failed"
    assert channel.call("echo", 1) == 1


@pytest.mark.parametrize(
    "error",
    [LocalProtocolError("SECRET", code="payload_too_large"), UnencodableValue("SECRET", 1), BadBody("SECRET", "$.SECRET"),
     RemoteProtocolError("SECRET"), Cancelled("SECRET"), asyncio.CancelledError("SECRET")],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_ours_raised_by_a_function_is_just_a_failure(open_channel: Open, error: BaseException) -> None:
    def forge() -> None:
        raise error

    failed = open_channel(forge).fail("forge")
    assert (failed.code, failed.error, failed.path) == ("function_failed", "Processing failed", None)


@pytest.mark.parametrize(
    ("error", "bound"),
    [(MemoryError(), "memory"), (OSError(errno.ENOSPC, "x"), "scratch"), (OSError(errno.EDQUOT, "x"), "scratch"),
     (OSError(errno.EFBIG, "x"), "scratch"), (OSError(errno.EMFILE, "x"), "open_files"),
     (RuntimeError("can't start new thread"), "processes")],
    ids=str,
)
def test_a_limit_met_as_an_exception_has_its_bound(open_channel: Open, error: Exception, bound: str) -> None:
    def meet() -> None:
        raise error

    failed = open_channel(meet).fail("meet")
    assert (failed.code, failed.bound) == ("resource_exhausted", bound)


def test_result_beyond_the_limit(open_channel: Open) -> None:
    def large() -> bytes:
        return b"x" * 5000

    failed = open_channel(large, response_limit=4096).fail("large")
    assert (failed.code, failed.bound) == ("payload_too_large", "response")


def test_result_that_cannot_be_carried_names_its_place(open_channel: Open) -> None:
    def strange() -> Any:
        return {"rows": [1, object()]}

    failed = open_channel(strange).fail("strange")
    assert (failed.code, failed.path) == ("function_failed", "$.rows[1]")


def test_a_result_whose_field_raises_is_a_failed_call(open_channel: Open) -> None:
    @dataclass
    class Trap:
        field: int

        def __getattribute__(self, name: str) -> Any:
            if name == "field":
                raise SystemExit("SECRET")
            return super().__getattribute__(name)

    def trap() -> Any:
        return Trap(1)

    channel = open_channel(trap, echo)
    assert channel.fail("trap").error == "Processing failed"
    assert channel.call("echo", 1) == 1


def test_current_call_is_known_and_only_inside(open_channel: Open) -> None:
    def who() -> list[Any]:
        call = current_call()
        return [call.id, call.method, call.deadline is not None, call.tenant, call.principal]

    channel = open_channel(who)
    channel.send("who", deadline_ms=60_000, tenant="t", principal="p")
    assert channel.value(channel.take()) == ["1", "who", True, "t", "p"]
    with pytest.raises(RuntimeError, match="no call is being served"):
        current_call()


def test_asyncio_to_thread_keeps_the_call(open_channel: Open) -> None:
    async def name() -> str:
        return await asyncio.to_thread(lambda: current_call().method)

    assert open_channel(name).call("name") == "name"


def test_a_thread_that_outlives_its_call_takes_no_bytes() -> None:
    kept: list[Any] = []

    def keep() -> None:
        kept.append(current_call())

    registry = Registry()
    registry.add(keep)
    outside, inside = socket.socketpair()
    with outside, inside:
        connection, caller = WorkerConnection(), CallerConnection()
        caller.receive(connection.ready({}, {}))
        server = loop._Server(inside, registry, connection)
        server._take(caller.request(1, "keep", None))
        server._answer(server._events.pop())
        outside.sendall(b"for the next call")
        kept[0]._look()
        assert inside.recv(100, socket.MSG_DONTWAIT) == b"for the next call"


def spin() -> None:
    started.release()
    while True:
        check_cancelled()


started = threading.Semaphore(0)


def test_check_cancelled_hears_the_cancellation(open_channel: Open) -> None:
    channel = open_channel(spin, echo)
    id = channel.send("spin")
    assert started.acquire(timeout=10)
    channel.socket.sendall(channel.connection.cancel(id, "bored"))
    assert channel.take().code == "cancelled"
    assert channel.call("echo", 1) == 1


def test_a_cancellation_in_the_chunk_of_its_request_is_heard(open_channel: Open) -> None:
    channel = open_channel(spin, echo)
    first = channel.connection.request(50, "echo", 1)
    second = channel.connection.request(51, "spin", None)
    channel.socket.sendall(first + second + channel.connection.cancel(51))
    assert channel.value(channel.take()) == 1
    event = channel.take()
    assert (event.id, event.code) == (51, "cancelled")
    assert not started.acquire(blocking=False)


def test_check_cancelled_hears_the_deadline(open_channel: Open) -> None:
    failed = open_channel(spin).fail("spin", deadline_ms=1)
    assert failed.code == "deadline_exceeded"
    assert started.acquire(timeout=10)


def test_cancel_event_is_set_and_its_thread_ends(open_channel: Open) -> None:
    def wait(seconds: float, cancel_event: threading.Event) -> bool:
        started.release()
        return cancel_event.wait(seconds)

    channel = open_channel(wait)
    assert channel.call("wait", 0.0) is False
    assert started.acquire(timeout=10)
    assert not [thread for thread in threading.enumerate() if thread.name == "cancel_event"]
    id = channel.send("wait", 10.0)
    assert started.acquire(timeout=10)
    channel.socket.sendall(channel.connection.cancel(id))
    assert channel.value(channel.take()) is True
    assert not [thread for thread in threading.enumerate() if thread.name == "cancel_event"]


def test_the_end_of_the_channel_cancels_and_ends(open_channel: Open) -> None:
    channel = open_channel(spin)
    channel.send("spin")
    assert started.acquire(timeout=10)
    channel.close()
    assert channel.error is None


def test_a_breach_ends_the_loop(open_channel: Open) -> None:
    channel = open_channel(echo)
    channel.socket.sendall(bytes(4))
    channel.thread.join(10)
    assert isinstance(channel.error, RemoteProtocolError)


def test_a_breach_while_a_function_runs_ends_the_loop(open_channel: Open) -> None:
    channel = open_channel(spin)
    channel.send("spin")
    assert started.acquire(timeout=10)
    channel.socket.sendall(bytes(4))
    channel.thread.join(10)
    assert isinstance(channel.error, RemoteProtocolError)


def test_output_is_counted_for_its_call(open_channel: Open) -> None:
    def say(req: str) -> None:
        sys.stdout.write(req)
        sys.stderr.write(req)

    channel = open_channel(say, echo)
    channel.send("say", "é")
    assert channel.take().output == 4
    channel.send("echo", 1)
    assert channel.take().output == 0


def test_a_closed_stdout_is_open_again_for_the_next_call(open_channel: Open) -> None:
    def shut() -> None:
        sys.stdout.close()

    def say() -> None:
        sys.stdout.write("x")

    channel = open_channel(shut, say)
    channel.call("shut")
    channel.send("say")
    event = channel.take()
    assert type(event) is Succeeded and event.output == 1


# Streams.


closed = threading.Event()


def count(n: int) -> Iterator[int]:
    closed.clear()
    try:
        yield from range(n)
    finally:
        closed.set()


async def acount(n: int) -> AsyncIterator[int]:
    closed.clear()
    try:
        async with asyncio.timeout(30):  # spans the yields: all of them must run in one task
            for number in range(n):
                await asyncio.sleep(0)
                yield number
    finally:
        closed.set()


both = pytest.mark.parametrize("name", ["count", "acount"])


@both
def test_a_plain_call_of_a_generator_answers_the_list(open_channel: Open, name: str) -> None:
    assert open_channel(count, acount).call(name, 40) == list(range(40))


@both
def test_sixteen_parts_go_ahead_of_the_credits(open_channel: Open, name: str) -> None:
    channel = open_channel(count, acount)
    id = channel.send(name, 20, stream=True)
    assert [channel.value(channel.take()) for _ in range(16)] == list(range(16))
    channel.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.socket.recv(1)
    channel.socket.settimeout(10)
    channel.socket.sendall(channel.connection.credit(id, 10))
    assert [channel.value(channel.take()) for _ in range(4)] == [16, 17, 18, 19]
    end = channel.take()
    assert type(end) is Succeeded and channel.value(end) is None


@both
def test_a_cancelled_stream_closes_its_generator(open_channel: Open, name: str) -> None:
    channel = open_channel(count, acount, echo)
    id = channel.send(name, 1_000_000, stream=True)
    assert type(channel.take()) is Part
    channel.socket.sendall(channel.connection.cancel(id))
    event = channel.take()
    while type(event) is Part:
        event = channel.take()
    assert type(event) is Failed and event.code == "cancelled"
    assert closed.is_set()
    assert channel.call("echo", 1) == 1


def test_a_stream_of_what_is_no_generator_is_its_success_alone(open_channel: Open) -> None:
    assert open_channel(echo).call("echo", 5, stream=True) == 5


@both
def test_a_list_of_parts_stays_within_the_response_limit(open_channel: Open, name: str) -> None:
    failed = open_channel(count, acount, response_limit=4096).fail(name, 1 << 40)
    assert (failed.code, failed.bound) == ("payload_too_large", "response")
    assert closed.is_set()


@pytest.mark.parametrize("stream", [True, False])
def test_a_part_that_cannot_be_carried_fails_the_call(open_channel: Open, stream: bool) -> None:
    def strange() -> Iterator[Any]:
        yield [object()]

    failed = open_channel(strange).fail("strange", stream=stream)
    assert (failed.code, failed.path) == ("function_failed", "$[0]")


# Async functions.


def test_an_async_function_answers(open_channel: Open) -> None:
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return x * 2

    channel = open_channel(double)
    assert [channel.call("double", x) for x in (1, 2)] == [2, 4]


def test_an_async_function_that_waits_is_cancelled_by_itself(open_channel: Open) -> None:
    async def hang() -> None:
        started.release()
        await asyncio.Event().wait()

    channel = open_channel(hang, echo)
    id = channel.send("hang")
    assert started.acquire(timeout=10)
    channel.socket.sendall(channel.connection.cancel(id))
    assert channel.take().code == "cancelled"
    assert channel.call("echo", 1) == 1


def test_a_task_left_behind_ends_with_its_call(open_channel: Open) -> None:
    ended: list[str] = []
    kept: list[Any] = []

    async def leave() -> None:
        async def linger() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        kept.append(asyncio.create_task(linger()))
        await asyncio.sleep(0)

    open_channel(leave).call("leave")
    assert ended == ["cancelled"]


def test_system_exit_in_an_async_function_is_a_failed_call(open_channel: Open) -> None:
    async def end() -> None:
        raise SystemExit(3)

    async def after() -> int:
        return 1

    channel = open_channel(end, after)
    assert channel.fail("end").error == "Processing failed"
    assert channel.call("after") == 1
