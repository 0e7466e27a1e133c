"""The asyncio face: the same core, driven by the event loop; no thread is between a call and its worker.

A call sends, tries one receive at once and only then waits: on a fast function the answer is often there already. An event loop
is told once of each worker, not once a call (`Ear`). Cancelling the task cancels the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Unpack

from msgspec import Raw

from pyproc.errors import CallError, PyprocError
from pyproc.pool import options as pool_options
from pyproc.pool.admission import Span
from pyproc.pool.checkout import Waiter
from pyproc.pool.core import Core
from pyproc.pool.dispatcher import Dispatcher
from pyproc.pool.ear import Ear, settle
from pyproc.pool.options import PoolOptions, with_options
from pyproc.pool.view import View
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed, Part, Succeeded
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.limits import PARTS_AHEAD


async def _room(fd: int) -> None:
    """Return when there is room in the pipe."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, settle, future)
    try:
        await future
    finally:
        loop.remove_writer(fd)


AUTOPSIES = 4  # at once; each waits for the kernel's word on a death, some milliseconds


class AsyncPool:
    """As Pool, with the options of Pool; started by `async with` or `await start()`."""

    @with_options
    def __init__(self, script: str | os.PathLike[str] | None = None, **options: Unpack[PoolOptions]) -> None:
        self._script = script
        self._options = options
        self._started: Core | None = None
        self._starting: asyncio.Task[Core] | None = None
        self._ears: weakref.WeakKeyDictionary[Worker, Ear] = weakref.WeakKeyDictionary()
        # not the loop's own threads, which may all be waiting for the call that is judged here
        self._autopsies = ThreadPoolExecutor(AUTOPSIES, "pyproc-autopsy")
        self._dispatcher: Dispatcher | None = None  # the one that was used last
        self._dispatchers: dict[asyncio.AbstractEventLoop, Dispatcher] = {}

    async def start(self) -> None:
        """Boot the workers, without blocking the loop. Raises ConfigError, ProtectionUnavailable, Unavailable once closed."""
        if self._started is not None:
            self._started.enter()
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(asyncio.to_thread(lambda: Core(pool_options.read(self._script, **self._options))))
        starting = self._starting
        try:
            self._started = await asyncio.shield(starting)  # cancelled, we go, and `close` ends what has started meanwhile
            self._started.ears = self._ears
        finally:
            if starting.done():
                self._starting = None

    @property
    def _core(self) -> Core:
        if self._started is None:
            raise RuntimeError("the pool is not started; use `async with AsyncPool(…)` or `await pool.start()`")
        return self._started

    async def call(self, method: str, body: Any = None, *, timeout: float | str | None = None) -> Any:
        """Call `method` with `body`; its result. Raises a CallError of contract section 4."""
        core = self._core
        if core.options.prefetch > 1:
            return await self._dispatched(method, body, timeout)
        worker, frame = await self._begin(method, body, timeout)
        id = worker.call_id
        try:
            await self._send(worker, frame)
            while True:
                for event in worker.connection.receive(await self._receive(worker)):
                    if type(event) is Succeeded or type(event) is Failed:
                        return core.finish(worker, event)
                    if type(event) is not Part:
                        raise await self._lost(worker)
        except TimeoutError:  # no channel's: a signal handler raised it
            core.left(worker, id)
            raise
        except (OSError, RemoteProtocolError) as error:
            raise await self._lost(worker, error) from error
        except BaseException:
            core.left(worker, id)
            raise

    async def _dispatched(self, method: str, body: Any, timeout: float | str | None) -> Any:
        dispatcher = self._dispatcher
        if dispatcher is None or dispatcher.loop is not asyncio.get_running_loop():
            dispatcher = self._dispatch_here()
        call = dispatcher.start(method, body, timeout)
        if not call.done:
            call.future = dispatcher.loop.create_future()
            try:
                await call.future
            finally:
                if not call.ended:
                    dispatcher.leave(call)
        if call.error is not None:
            raise call.taken_error()
        return call.value

    def _dispatch_here(self) -> Dispatcher:
        """The dispatcher of the running loop."""
        core, loop = self._core, asyncio.get_running_loop()
        dispatcher = self._dispatchers.get(loop)
        if dispatcher is None:
            for other in [other for other in list(self._dispatchers) if other.is_closed()]:
                forsaken = self._dispatchers.pop(other, None)  # by one thread, if several come
                if forsaken is not None:
                    forsaken.abandon()
            dispatcher = self._dispatchers[loop] = Dispatcher(core, loop, self._ears, self._autopsies)
        self._dispatcher = dispatcher
        return dispatcher

    async def view(self, method: str, body: Any = None, *, timeout: float | str | None = None) -> View:
        """As Pool.view: `with await pool.view(…) as view: view.value`."""
        core = self._core
        worker, frame = await self._begin(method, body, timeout)
        id = worker.call_id
        try:
            async with self._losing(worker):
                await self._send(worker, frame)
                while True:
                    for event in worker.connection.receive(await self._receive(worker)):
                        if type(event) is not Succeeded and type(event) is not Failed:
                            raise await self._lost(worker)
                        view: View = core.finish(worker, event, lend=True)
                        return view
        except BaseException:
            core.left(worker, id)
            raise

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> Any:
        """As Pool.empty."""
        return self._core.empty(shape, dtype)

    async def stream(self, method: str, body: Any = None, *, timeout: float | str | None = None,
                     part_timeout: float | str | None = None) -> AsyncGenerator[Any, None]:
        """As Pool.stream."""
        core = self._core
        seconds = core.parts_within(part_timeout)
        worker, frame = await self._begin(method, body, timeout, stream=True)
        id, taken, end = worker.call_id, 0, worker.deadline
        try:
            async with self._losing(worker):
                await self._send(worker, frame)
            while True:
                async with self._losing(worker):
                    with core.awaiting_part(worker, seconds, end):
                        events = worker.connection.receive(await self._receive(worker))
                for event in events:
                    if type(event) is Part:
                        async with self._losing(worker):
                            part = core.part(worker, event)
                        yield part
                        taken += 1
                        if taken >= PARTS_AHEAD // 2 and id in worker.connection.open_calls:
                            async with self._losing(worker):
                                await self._send(worker, worker.connection.credit(id, taken))
                            taken = 0
                    elif type(event) is Succeeded or type(event) is Failed:
                        async with self._losing(worker):
                            single = core.finish(worker, event)
                        if single is not None:
                            yield single
                        return
                    else:
                        raise await self._lost(worker)
        finally:
            core.left(worker, id)

    @contextlib.asynccontextmanager
    async def _losing(self, worker: Worker) -> AsyncIterator[None]:
        """As `Core.losing`."""
        try:
            yield
        except TimeoutError:
            raise
        except (OSError, RemoteProtocolError) as error:
            raise await self._lost(worker, error) from error

    async def _lost(self, worker: Worker, cause: BaseException | None = None) -> CallError:
        """As `Core.lost`, which waits for the kernel's evidence; it is finished and counted there although we are cancelled."""
        worker.call_id = 0  # counted there, and by nobody else
        ear = self._ears.pop(worker, None)
        if ear is not None:
            ear.close()
        try:
            judged = asyncio.get_running_loop().run_in_executor(self._autopsies, self._core.lost, worker, cause)
        except RuntimeError:  # the pool is closed
            return self._core.lost(worker, cause)
        return await judged

    async def _begin(self, method: str, body: Any, timeout: float | str | None, *, stream: bool = False) -> tuple[Worker, bytes]:
        """The worker that a call begins on, and its frame. Raises CallError."""
        core = self._core
        worker = span = None
        try:
            worker, span = core.lend(method, timeout, body)
            if worker is None:
                worker, body, span = await self._wait(method, body, span, stream=stream)
            return worker, core.begin(worker, method, body, span, stream)
        except BaseException as error:
            core.not_begun(worker, span, error)
            raise

    async def _wait(self, method: str, body: Any, span: Span, *, stream: bool) -> tuple[Worker, Raw, Span]:
        """A worker, the encoded body, and what is left of `span`. Raises CallError."""
        core, loop, here = self._core, asyncio.get_running_loop(), threading.get_ident()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            try:
                if threading.get_ident() == here:
                    settle(woken)
                else:
                    loop.call_soon_threadsafe(settle, woken)
            except RuntimeError:  # the loop was closed with this call in it: nobody waits any more
                core.forsake(waiter)

        waiter = Waiter(wake, span, watched=True)
        try:
            core.queue(waiter, method, body, stream=stream)
            core.watch(waiter.deadline)
            await woken
            return core.granted(waiter, method)
        except BaseException:
            core.interrupted(waiter)
            raise

    async def _send(self, worker: Worker, frame: bytes) -> None:
        channel = worker.channel
        if channel.waits:
            channel.set_waiting(waits=False)
        sent = 0
        while sent < len(frame):
            try:
                sent += os.write(channel.requests, memoryview(frame)[sent:] if sent else frame)
            except BlockingIOError:
                if worker.finished.is_set():
                    raise
                channel.sending = True
                await _room(channel.requests)
                channel.sending = False

    async def _receive(self, worker: Worker) -> bytes:
        ear = self._dispatch_here().ear(worker)
        while True:
            try:
                return worker.channel.receive(worker.finished.is_set)
            except BlockingIOError:
                await ear.listen()

    def executor(self) -> Executor:
        """As Pool's: `await loop.run_in_executor(pool.executor(), f, x)`."""
        return self._core.executor(self)

    def functions(self) -> dict[str, Any]:
        """Name -> schemas and promises, as Pool.functions."""
        return dict(self._core.supervisor.functions)

    def status(self) -> dict[str, Any]:
        """As Pool.status."""
        return self._core.status()

    async def close(self, grace: float | str = 0.0) -> None:
        """End every worker; nothing is left behind. Raises ConfigError."""
        if self._starting is not None:
            with contextlib.suppress(PyprocError):
                await self.start()
        if self._started is not None:
            await asyncio.to_thread(self._started.close, grace)
        self._autopsies.shutdown(wait=False)
        here = asyncio.get_running_loop()
        for loop, dispatcher in list(self._dispatchers.items()):
            if loop is here or loop.is_closed():  # elsewhere the end of the workers is heard
                dispatcher.close()
        for ear in list(self._ears.values()):
            ear.close()
        self._ears.clear()

    def __del__(self) -> None:
        core = getattr(self, "_started", None)
        if core is not None:
            core.dropped(self)

    async def __aenter__(self) -> AsyncPool:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()
