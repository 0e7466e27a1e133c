"""What a function returned that is no value yet: a generator, a coroutine, an asynchronous generator.

    function --> generator --+-- asked as a stream: part, part, ... (16 ahead, then as credit allows), then null
                             +-- asked plainly: the list of all parts, within the response limit

A function is told by what it returns and not by how it was written, so that a decorator around it changes nothing.

The event loop is kept for the life of the worker: what an `async def` keeps open (a client, a cache) belongs to it. It
runs only while an asynchronous call runs, and tasks end with the call that started them: left alone they would go on in
the call of someone else. An asynchronous generator is driven by one task from start to end, because
time-outs and cancel scopes inside it belong to a task.

Whoever serves is a `Port`: a worker's channel, or one client of a stand-alone worker.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import aclosing
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyproc_wire.errors import LocalProtocolError, UnencodableValue
from pyproc_worker.call import Call, Cancelled
from pyproc_worker.failure import Unsendable

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from pyproc_wire.connection import WorkerConnection

UNFINISHED: Final = frozenset({GeneratorType, CoroutineType, AsyncGeneratorType})
"""Types of results that `finish` turns into values."""


class Port(Protocol):
    """One connection, from the side of a running call. All may be called from the thread that runs it."""

    @property
    def connection(self) -> WorkerConnection: ...

    def window(self, call: Call) -> int:
        """Parts that may be sent now."""

    def send_part(self, call: Call, value: Any) -> None:
        """Send a part; its window is not 0. Raises UnencodableValue, LocalProtocolError, OSError."""

    def wait(self, call: Call) -> None:
        """Return when something arrived for the call, or the caller gave up."""

    def attach(self, loop: AbstractEventLoop) -> None:
        """Let `loop` take in what arrives while it runs."""


class Size:
    """Adds up the parts of a list that answers a plain call, so that it is refused before it fills the memory."""

    __slots__ = ("_connection", "_bytes", "parts")

    def __init__(self, port: Port) -> None:
        self._connection = port.connection
        self._bytes = 0
        self.parts: list[Any] = []

    def add(self, part: Any) -> None:
        """Raises Unsendable with the path in the list, or beyond the response limit."""
        try:
            self._bytes += len(self._connection.codec.encode_value(part))
        except UnencodableValue as error:
            error.beneath_index(len(self.parts))
            raise Unsendable(error) from error
        if self._bytes > self._connection.response_limit:
            text = f"parts are too many bytes together, limit is {self._connection.response_limit}"
            raise Unsendable(LocalProtocolError(text, code="payload_too_large"))
        self.parts.append(part)


def drain(port: Port, call: Call, parts: Generator[Any, None, Any], *, stream: bool) -> Any:
    """Send the parts of a generator and return None, or return the list of them. The generator is closed after it."""
    size = Size(port)
    try:
        for part in parts:
            if call.look():
                raise Cancelled("caller gave up")
            if not stream:
                size.add(part)
                continue
            while not port.window(call):
                port.wait(call)
                if call.cancelled:
                    raise Cancelled("caller gave up")
            _send(port, call, part)
    finally:
        _close(parts)
    return None if stream else size.parts


def _send(port: Port, call: Call, part: Any) -> None:
    try:
        port.send_part(call, part)
    except LocalProtocolError as error:
        raise Unsendable(error) from error


def _close(parts: Generator[Any, None, Any]) -> None:
    try:
        parts.close()
    except BaseException:  # noqa: BLE001, S110 - the answer is decided; what a generator does when told to go is its own
        pass


class Coroutines:
    """The worker's one event loop."""

    def __init__(self, port: Port | None = None) -> None:
        import asyncio

        self._asyncio = asyncio
        self._loop = asyncio.new_event_loop()
        if port is not None:
            port.attach(self._loop)

    def finish(self, port: Port, call: Call, result: Any, *, stream: bool) -> Any:
        """Run a coroutine to its value, or an asynchronous generator as `drain` does a plain one."""
        if type(result) is AsyncGeneratorType:
            return self._run(call, self._pump(port, call, result, stream=stream))
        return self._run(call, result)

    def _run(self, call: Call, work: Coroutine[Any, Any, Any]) -> Any:
        loop = self._loop
        task = loop.create_task(_outcome(work))
        news = self._news = self._asyncio.Event()

        def arrived() -> None:
            news.set()
            if call.cancelled:
                task.cancel()

        call.notify = lambda: _tell(loop, arrived)
        if call.cancelled:
            task.cancel()
        try:
            value, error = loop.run_until_complete(task)
        finally:
            call.notify = None
            self._end_tasks()
        if error is not None:
            raise error
        return value

    def _end_tasks(self) -> None:
        left = self._asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(self._asyncio.gather(*left, return_exceptions=True))

    async def _pump(self, port: Port, call: Call, parts: AsyncGenerator[Any, Any], *, stream: bool) -> Any:
        size = Size(port)
        news = self._news
        async with aclosing(parts):
            async for part in parts:
                if not stream:
                    size.add(part)
                    continue
                while not port.window(call):
                    news.clear()
                    if not port.window(call):
                        await news.wait()
                _send(port, call, part)
                await self._asyncio.sleep(0)  # a generator that never waits would not hear of a cancellation
        return None if stream else size.parts

    def close(self) -> None:
        """End the loop and release its descriptors."""
        self._loop.close()


async def _outcome(work: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """Value and exception of a coroutine: asyncio asks an exception for its class, and one that raises hangs the loop."""
    try:
        return await work, None
    except BaseException as error:  # noqa: BLE001 - raised again outside of the loop
        return None, error


def _tell(loop: AbstractEventLoop, callback: Any) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # the loop was closed meanwhile: nobody is left to tell
