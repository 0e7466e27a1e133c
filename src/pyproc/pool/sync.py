"""The blocking face: a call is one send and one receive in the caller's own thread, and nothing waits under a lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from os import read, write
from types import TracebackType
from typing import Any, TypeVar, Unpack

from pyproc.errors import ConfigError
from pyproc.link.channel import WHOLE_BYTES
from pyproc.pool import batches
from pyproc.pool import options as pool_options
from pyproc.pool.converse import answer, converse, wait
from pyproc.pool.core import Core
from pyproc.pool.futures import Submission, Submissions
from pyproc.pool.options import PoolOptions, with_options
from pyproc.pool.view import View
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed, Part, Succeeded
from pyproc_wire.errors import RemoteProtocolError
from pyproc_wire.limits import PARTS_AHEAD, RECV_BYTES

S = TypeVar("S", bound=Submission)


class Pool:
    """Sandboxed workers for one script (contract, section 3). Raises ConfigError, ProtectionUnavailable.

    `script` is a path, left out where `executor` is all that is used; `workers` processes; `isolation` worker or call; `timeout`
    seconds or "30 s" for each call; `queue` calls may wait; a worker is replaced after `max_requests` (0: never); `env` is its
    whole environment; `preload` names modules to import before the script; `zygote=False` boots each worker apart, for scripts
    that start threads.
    """

    @with_options
    def __init__(self, script: str | os.PathLike[str] | None = None, **options: Unpack[PoolOptions]) -> None:
        self._open(pool_options.read(script, **options))

    def _open(self, options: pool_options.Options) -> None:
        if options.prefetch > 1:
            raise ConfigError(f"prefetch is {options.prefetch}, and a Pool sends no call ahead: a thread waits for each, and those of "
                              "a map travel together as it is; write 1, or use AsyncPool")
        self._core = Core(options)
        self._submissions: Submissions | None = None
        self._submitting = threading.Lock()

    def call(self, method: str, body: Any = None, *, timeout: float | str | None = None) -> Any:
        """Call `method` with `body`; its result. Raises a CallError of contract section 4."""
        core = self._core
        worker = span = None
        try:
            worker, span = core.lend(method, timeout, body)
            if worker is None:
                worker, body, span = wait(core, method, body, span)
            frame = core.begin(worker, method, body, span, False)
        except BaseException as error:
            core.not_begun(worker, span, error)
            raise
        id = worker.call_id
        try:
            channel = worker.channel
            if len(frame) <= WHOLE_BYTES:
                write(channel.requests, frame)
            else:
                channel.send(frame, worker.finished.is_set)
            if channel.lively:
                channel.look_out()
            data = read(channel.answers, RECV_BYTES)
            success = worker.connection.brief(data)
            if success is None:
                return answer(core, worker, data)
            core.succeeded(worker, success.output)
            return success.body
        except TimeoutError:  # no channel's: a signal handler raised it
            core.left(worker, id)
            raise
        except (OSError, RemoteProtocolError) as error:
            raise core.lost(worker, error) from error
        except BaseException:
            core.left(worker, id)
            raise

    def view(self, method: str, body: Any = None, *, timeout: float | str | None = None) -> View:
        """As `call`, and large arrays of the result are not copied: `with pool.view(…) as view: view.value`. They are read-only,
        and the worker serves nobody else until the view is released. Raises a CallError."""
        view: View = converse(self._core, *self._begin(method, body, timeout), lend=True)
        return view

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> Any:
        """As `numpy.empty`: an array that a call with it as its body, or as an item of its body, can send without a copy."""
        return self._core.empty(shape, dtype)

    def _begin(self, method: str, body: Any, timeout: float | str | None, *, stream: bool = False) -> tuple[Worker, bytes]:
        """The worker that a call begins on, and its frame. Raises CallError. As in `call`, where it is written out."""
        core = self._core
        worker = span = None
        try:
            worker, span = core.lend(method, timeout, body)
            if worker is None:
                worker, body, span = wait(core, method, body, span, stream=stream)
            return worker, core.begin(worker, method, body, span, stream)
        except BaseException as error:
            core.not_begun(worker, span, error)
            raise

    def stream(self, method: str, body: Any = None, *, timeout: float | str | None = None,
               part_timeout: float | str | None = None) -> Generator[Any, None, None]:
        """The parts of a generator as they come, each within `part_timeout` of being waited for; closing the iterator cancels the call.
        Raises a CallError."""
        core = self._core
        seconds = core.parts_within(part_timeout)
        worker, frame = self._begin(method, body, timeout, stream=True)
        id, taken, channel, ended, end = worker.call_id, 0, worker.channel, worker.finished.is_set, worker.deadline
        try:
            with core.losing(worker):
                channel.send(frame, ended)
            while True:
                with core.losing(worker), core.awaiting_part(worker, seconds, end):
                    events = worker.connection.receive(channel.receive(ended))
                for event in events:
                    if type(event) is Part:
                        with core.losing(worker):
                            part = core.part(worker, event)
                        yield part
                        taken += 1
                        if taken >= PARTS_AHEAD // 2 and id in worker.connection.open_calls:
                            with core.losing(worker):
                                channel.send(worker.connection.credit(id, taken), ended)
                            taken = 0
                    elif type(event) is Succeeded or type(event) is Failed:
                        with core.losing(worker):
                            single = core.finish(worker, event)
                        if single is not None:
                            yield single
                        return
                    else:
                        raise core.lost(worker)
        finally:
            core.left(worker, id)

    def submit(self, method: str, body: Any = None, *, timeout: float | str | None = None) -> Future[Any]:
        """The call as a concurrent.futures.Future, which holds its refusal too. Raises Unavailable once the pool is closed."""
        return self._submit(Submission(self._core, method), body, timeout)

    def _submit(self, call: S, body: Any, timeout: float | str | None) -> S:
        if self._core.closed is not None:
            self._core.refuse_closed()
        with self._submitting:
            if self._submissions is None:
                self._submissions = Submissions(self._core)
        self._submissions.start(call, body, timeout)
        return call

    def map(self, method: str, bodies: Iterable[Any], *, timeout: float | str | None = None) -> Iterator[Any]:
        """The results in order. Calls that take little time travel together, in batches; twice as many batches as workers are in
        flight at most, and no more than find room in the queue. The first error is raised in its place."""
        return batches.Results.of(batches.results(self._core, self._submit, method, bodies, timeout))

    def executor(self) -> Executor:
        """A concurrent.futures.Executor that runs ordinary functions in this pool's workers; what they return comes as data. All
        that a pool gave share its workers; its shutdown leaves the pool open. Raises ConfigError without cloudpickle."""
        return self._core.executor(self)

    def functions(self) -> dict[str, Any]:
        """Name -> {"input", "output" (JSON Schemas), "stream", "timeout", "idempotent"}."""
        return dict(self._core.supervisor.functions)

    def status(self) -> dict[str, Any]:
        """Workers and states, ledger, deaths by reason, layers in force."""
        return self._core.status()

    def close(self, grace: float | str = 0.0) -> None:
        """End every worker; calls in flight get `grace`, seconds or "5 s". Nothing is left behind. Raises ConfigError."""
        self._core.close(grace)
        if self._submissions is not None and self._core.owner == os.getpid():
            self._submissions.close()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None:
            core.dropped(self)

    def __enter__(self) -> Pool:
        self._core.enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


