"""The worker's loop: answers, failures, cancellation, streams, async functions, and what ends it."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import random
import select
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pyproc_wire.connection import CallerConnection, Failed, Part, Succeeded
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue
from pyproc_worker.call import Cancelled, check_cancelled, current_call
from pyproc_worker.channel import Channel
from pyproc_worker.failure import PublicError
from pyproc_worker.loop import prepare
from pyproc_worker.misfit import InvalidBody
from pyproc_worker.registry import Registry

Open = Callable[..., Any]


def echo(req: Any) -> Any:
    return req


def test_ready_tells_functions(open_channel: Open) -> None:
    channel = open_channel(echo)
    assert set(channel.ready.functions) == {"health", "echo"}


def test_a_worker_settles_between_ready_and_its_first_request() -> None:
    """So the supervisor attests while it does; and what settling changes, no request has seen otherwise."""
    (requests, supervisor), (answers, inner), (greeting, far) = os.pipe(), os.pipe(), socket.socketpair()
    greeting.setblocking(False)
    steps: list[str] = []
    connection = CallerConnection()

    def step(name: str) -> str:
        steps.append(name)
        return name

    def settle() -> None:
        connection.receive(greeting.recv(65536))  # BlockingIOError if it has not greeted
        os.write(supervisor, connection.request(5, "step", "called"))
        os.close(supervisor)
        step("settled")

    registry = Registry()
    registry.add(step)
    prepare(Channel(requests, inner, far.detach()), registry, request_limit=1 << 20, response_limit=1 << 20,
            settle=settle)()
    greeting.close()
    for fd in (requests, answers, inner):
        os.close(fd)
    assert steps == ["settled", "called"]


def test_calls_are_answered_in_turn(open_channel: Open) -> None:
    channel = open_channel(echo)
    assert [channel.call("echo", body) for body in (1, None, [1.5], {"a": b"x"}, (1, 2))] == [1, None, [1.5], {"a": b"x"}, (1, 2)]


def test_requests_in_one_chunk_are_all_answered(open_channel: Open) -> None:
    channel = open_channel(echo)
    frames = [channel.connection.request(number, "echo", number) for number in (101, 102, 103)]
    channel.write(b"".join(frames))
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
    [LocalProtocolError("SECRET", code="payload_too_large"), UnencodableValue("SECRET", 1), InvalidBody("SECRET", "$.SECRET"),
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


def test_a_thread_that_outlives_its_call_takes_no_bytes(open_channel: Open) -> None:
    kept: list[Any] = []
    over = threading.Event()

    def keep() -> None:
        kept.append(current_call())

    def look_on() -> None:
        while not over.is_set():
            kept[0].look()

    channel = open_channel(keep, echo)
    channel.call("keep")
    thread = threading.Thread(target=look_on)
    thread.start()
    try:
        assert [channel.call("echo", number) for number in range(300)] == list(range(300))
    finally:
        over.set()
        thread.join(10)


def spin() -> None:
    started.release()
    while True:
        check_cancelled()


started = threading.Semaphore(0)


def test_check_cancelled_hears_the_cancellation(open_channel: Open) -> None:
    channel = open_channel(spin, echo)
    id = channel.send("spin")
    assert started.acquire(timeout=10)
    channel.write(channel.connection.cancel(id, "bored"))
    assert channel.take().code == "cancelled"
    assert channel.call("echo", 1) == 1


def test_a_cancellation_in_the_chunk_of_its_request_is_heard(open_channel: Open) -> None:
    channel = open_channel(spin, echo)
    first = channel.connection.request(50, "echo", 1)
    second = channel.connection.request(51, "spin", None)
    channel.write(first + second + channel.connection.cancel(51))
    assert channel.value(channel.take()) == 1
    event = channel.take()
    assert (event.id, event.code) == (51, "cancelled")
    assert not started.acquire(blocking=False)


def test_check_cancelled_hears_the_deadline(open_channel: Open) -> None:
    failed = open_channel(spin).fail("spin", deadline_ms=1)
    assert failed.code == "deadline_exceeded"
    assert failed.error == "deadline has passed: the call had 0.001 s, by its caller or the pool; give it more time"
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
    channel.write(channel.connection.cancel(id))
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
    channel.write(bytes(4))
    channel.thread.join(10)
    assert isinstance(channel.error, RemoteProtocolError)


def test_a_breach_while_a_function_runs_ends_the_loop(open_channel: Open) -> None:
    channel = open_channel(spin)
    channel.send("spin")
    assert started.acquire(timeout=10)
    channel.write(bytes(4))
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
    assert not select.select([channel.answers], [], [], 0)[0]
    channel.write(channel.connection.credit(id, 10))
    assert [channel.value(channel.take()) for _ in range(4)] == [16, 17, 18, 19]
    end = channel.take()
    assert type(end) is Succeeded and channel.value(end) is None


@both
def test_a_cancelled_stream_closes_its_generator(open_channel: Open, name: str) -> None:
    channel = open_channel(count, acount, echo)
    id = channel.send(name, 1_000_000, stream=True)
    assert type(channel.take()) is Part
    channel.write(channel.connection.cancel(id))
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
    assert (failed.code, failed.path) == ("function_failed", "$[0]" if stream else "$[0][0]")


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
    channel.write(channel.connection.cancel(id))
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


# What a function is, is told by what it returns.


def wrapped(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@wrapped
def wrapped_parts(n: int) -> Iterator[int]:
    yield from range(n)


@wrapped
async def wrapped_coroutine(n: int) -> int:
    return n


def test_a_decorator_changes_nothing(open_channel: Open) -> None:
    channel = open_channel(wrapped_parts, wrapped_coroutine)
    assert channel.call("wrapped_parts", 3) == [0, 1, 2]
    assert channel.call("wrapped_coroutine", 3) == 3
    channel.send("wrapped_parts", 2, stream=True)
    assert [type(channel.take()) for _ in range(3)] == [Part, Part, Succeeded]


# Exceptions whose own code raises: the worker lives on, and nothing of them is told.


class ClassRaises(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("SECRET")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class ErrnoRaises(OSError):
    @property
    def errno(self) -> Any:
        raise RuntimeError("SECRET")


class TracebackRaises(Exception):
    __traceback__ = property(lambda self: 1 / 0)  # type: ignore[assignment]


class NotesRaise(Exception):
    @property
    def __notes__(self) -> Any:
        raise SystemExit

    __cause__ = property(lambda self: "SECRET")  # type: ignore[assignment]


class ArgsRaise(RuntimeError):
    args = property(lambda self: 1 / 0)  # type: ignore[assignment]


class NeverEqual:
    def __eq__(self, other: object) -> bool:
        raise SystemExit(3)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassRaises("SECRET"),
        lambda: ErrnoRaises("SECRET"),
        lambda: TracebackRaises("SECRET"),
        lambda: NotesRaise("SECRET"),
        lambda: ArgsRaise("SECRET"),
        lambda: RuntimeError(NeverEqual()),
        lambda: ExceptionGroup("SECRET", [ValueError("SECRET"), PublicError("SECRET")]),
    ],
    ids=["class", "errno", "traceback", "notes and cause", "args", "equality", "group"],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hostile_exception_costs_its_call_alone(open_channel: Open, make: Any, asynchronous: bool) -> None:
    def trap() -> None:
        raise make()

    async def trap_async() -> None:
        raise make()

    channel = open_channel(trap, trap_async, echo)
    failed = channel.fail("trap_async" if asynchronous else "trap")
    assert (failed.code, failed.error, failed.path, failed.bound) == ("function_failed", "Processing failed", None, None)
    assert channel.call("echo", 1) == 1


# Deadlines and cancellation.


def test_nothing_runs_after_its_deadline(open_channel: Open) -> None:
    assert open_channel(echo).fail("echo", 1, deadline_ms=0).code == "deadline_exceeded"


def test_the_functions_own_timeout_counts(open_channel: Open) -> None:
    def left() -> float | None:
        deadline = current_call().deadline
        return None if deadline is None else deadline - time.monotonic()

    registry = Registry()
    registry.add(left, timeout=7)
    registry.add(left, name="unbound")
    channel = open_channel(registry=registry)
    assert 6 < channel.call("left") <= 7
    assert 1 < channel.call("left", deadline_ms=2000) <= 2
    assert channel.call("unbound") is None


def test_cancel_event_is_set_at_the_deadline(open_channel: Open) -> None:
    def wait(cancel_event: threading.Event) -> bool:
        return cancel_event.wait(30)

    assert open_channel(wait).call("wait", deadline_ms=50) is True


def test_cancel_event_may_stand_anywhere(open_channel: Open) -> None:
    def first(cancel_event: threading.Event, x: int) -> list[Any]:
        return [x, cancel_event.is_set()]

    assert open_channel(first).call("first", 3) == [3, False]


def test_a_thread_of_the_function_sees_its_call(open_channel: Open) -> None:
    def ask() -> list[str]:
        seen: list[str] = []

        def look() -> None:
            check_cancelled()
            seen.append(current_call().method)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return seen

    assert open_channel(ask).call("ask") == ["ask"]


def test_requests_that_arrive_together_wait_and_can_be_withdrawn(open_channel: Open) -> None:
    channel = open_channel(echo)
    frames = [channel.connection.request(id, "echo", id) for id in (1, 2, 3)]
    channel.write(b"".join(frames) + channel.connection.cancel(2))
    answers = [channel.take() for _ in range(3)]
    assert [answer.id for answer in answers] == [1, 2, 3]
    assert [type(answer) for answer in answers] == [Succeeded, Failed, Succeeded]
    assert answers[1].code == "cancelled"


def test_a_request_that_a_running_function_meets_is_handed_back(open_channel: Open) -> None:
    def hold(cancel_event: threading.Event) -> int:
        started.release()
        cancel_event.wait(30)
        return 1

    def note() -> None:
        ran.append(1)

    ran: list[int] = []
    channel = open_channel(hold, note)
    first = channel.send("hold")
    assert started.acquire(timeout=10)
    second = channel.send("note")
    back = channel.take()
    assert (type(back), back.id, back.code) == (Failed, second, "cancelled")
    channel.write(channel.connection.cancel(first))
    assert channel.take().id == first
    assert ran == []


def test_what_waits_is_not_begun_after_the_end(open_channel: Open) -> None:
    ran: list[int] = []

    def hold(cancel_event: threading.Event) -> None:
        started.release()
        cancel_event.wait(30)

    def note() -> None:
        ran.append(1)

    channel = open_channel(hold, note)
    channel.send("hold")
    assert started.acquire(timeout=10)
    channel.send("note")
    channel.close()
    assert ran == [] and channel.error is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the generator itself
@pytest.mark.parametrize("ending", ["again", "raises"])
def test_a_generator_that_does_not_want_to_close_changes_nothing(open_channel: Open, ending: str) -> None:
    def parts() -> Iterator[int]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                if ending == "raises":
                    raise ValueError("SECRET") from None

    channel = open_channel(parts, echo)
    id = channel.send("parts", stream=True)
    assert {type(channel.take()) for _ in range(16)} == {Part}
    channel.write(channel.connection.cancel(id))
    answer = channel.take()
    assert (type(answer), answer.code) == (Failed, "cancelled")
    assert channel.call("echo", 1) == 1


def test_tasks_go_on_while_a_stream_waits_for_credit(open_channel: Open) -> None:
    ticks: list[int] = []

    async def parts() -> Any:
        ticked = asyncio.Event()

        async def tick() -> None:
            while len(ticks) < 100:
                await asyncio.sleep(0)
                ticks.append(1)
            ticked.set()

        task = asyncio.create_task(tick())
        for number in range(17):
            yield number
        await ticked.wait()
        task.cancel()

    channel = open_channel(parts)
    id = channel.send("parts", stream=True)
    assert [channel.value(channel.take()) for _ in range(16)] == list(range(16))
    end = time.monotonic() + 10
    while len(ticks) < 100 and time.monotonic() < end:
        threading.Event().wait(0.001)
    assert len(ticks) == 100
    channel.write(channel.connection.credit(id, 5))
    assert channel.value(channel.take()) == 16
    assert type(channel.take()) is Succeeded


def test_any_chunking_and_mix_of_calls_is_answered(open_channel: Open) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def count(n: int) -> Iterator[int]:
        yield from range(n)

    channel = open_channel(echo, count, wrapped_coroutine)
    sent: list[tuple[int, Any]] = []
    stream = b""
    for id in range(1, 200):
        method, body = chance.choice([("echo", "x" * chance.randrange(3000)), ("count", chance.randrange(20)),
                                      ("wrapped_coroutine", chance.randrange(9)), ("nobody", None)])
        stream += channel.connection.request(id, method, body)
        sent.append((id, {"echo": body, "count": list(range(body)) if method == "count" else 0,
                          "wrapped_coroutine": body, "nobody": "not_found"}[method]))

    def feed() -> None:
        at = 0
        while at < len(stream):
            size = chance.choice([1, 3, 50, 5000, 70_000])
            channel.write(stream[at : at + size])
            at += size

    feeder = threading.Thread(target=feed)
    feeder.start()
    got: dict[int, Any] = {}
    handed_back: list[int] = []
    while len(got) + len(handed_back) < len(sent):
        answer = channel.take()
        if type(answer) is Failed and answer.code == "cancelled":  # a generator or a coroutine met it
            handed_back.append(answer.id)
        else:
            got[answer.id] = answer.code if type(answer) is Failed else channel.value(answer)
    feeder.join(10)
    assert list(got) == sorted(got), "those that began are answered in order"
    assert not set(got) & set(handed_back)
    assert got == {id: value for id, value in sent if id in got}
