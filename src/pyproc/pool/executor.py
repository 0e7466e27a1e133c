"""`pool.executor()`: the standard library's Executor, whose functions run in the sandbox.

    submit ──pickled, in the caller's thread──▶ a thread takes it up ──PICKLED──▶ worker: loads and runs it
    Future ◀──────────── value | CallError ──── the thread            ◀──data──── its value

What is sent is code and what comes back is data: a value is decoded like every other result, and nothing that a worker said is ever
unpickled. Running functions is asked for by the pool's owner, who holds this object. No name leads here: to whoever may call the
pool's methods, in this program or through a service, the runner is not there.

As many threads as workers, shared by all executors of a pool. What waits, waits for a thread and not in the pool's queue, without
bound and without a clock, as with any executor; a function's time begins with its turn. So a program may submit more than the
queue holds, and work that takes longer than one function may. Futures, order, cancelling and the end of the interpreter are
ThreadPoolExecutor's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any, Final, NoReturn, TypeVar

from pyproc.errors import ConfigError, InvalidArgument, PyprocError
from pyproc.pool.converse import converse
from pyproc.pool.converse import wait as wait_for_worker
from pyproc.pool.core import Core
from pyproc.pool.options import NO_CLOUDPICKLE
from pyproc.sandbox import interpreter, plan
from pyproc_wire.pickled import EACH, PICKLE, PICKLED

T = TypeVar("T")

DASK_WORKER: Final = "distributed.worker"
WRAPPERS: Final = ("_run_task_simple", "apply_function_simple")
"""Functions of DASK_WORKER that wrap a task, their first argument. What they return holds classes and exceptions, for that process
alone: they run in it, and the task in the sandbox."""


class _Each:
    """Wraps a function that is to be called for each of a list of argument lists, in one call of a worker."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """What a worker does."""
        return [self.fn(*arguments) for arguments in calls]


class FunctionSender:
    """The way of functions into one pool, and its threads. Raises ConfigError."""

    def __init__(self, core: Core) -> None:
        try:
            from pyproc.pool.pickling import pickler
        except ModuleNotFoundError as error:
            raise ConfigError(NO_CLOUDPICKLE) from error
        spec = core.options.spec
        if core.options.queue < spec.workers:
            raise ConfigError(f"queue is {core.options.queue}, and an executor needs room for each of {spec.workers} workers while "
                              f"another one starts; write queue={spec.workers} or more")
        beside = plan.importable(os.path.dirname(spec.script), spec.sandbox.read)
        folders = interpreter.describe(spec.python).importable
        self._dumps = pickler(folders if beside is None else (*folders, beside))
        self._core = core
        self.workers = spec.workers
        self._threads = ThreadPoolExecutor(self.workers, "pyproc-executor")

    def prepare(self, fn: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Callable[[], Any]:
        """What a thread is to do, with the arguments as they are now; what cannot be pickled is said by the future."""
        if arguments and _wraps_a_task(fn):
            task = arguments[0]
            return partial(fn, lambda *rest, **more: self.prepare(task, rest, more)(), *arguments[1:], **keywords)
        each = isinstance(fn, _Each)
        sent = (fn.fn, arguments[0], keywords) if isinstance(fn, _Each) else (fn, arguments, keywords)
        try:
            pickled = self._dumps(sent)
        except Exception as error:  # noqa: BLE001 - an object's own code may raise anything, and it is the future's
            return partial(_refuse, InvalidArgument(f"function cannot be pickled: {error}"), error)
        return partial(self._call, {PICKLE: pickled, EACH: each})

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Raises RuntimeError once the pool is closed, PyprocError in a forked child."""
        core = self._core
        if os.getpid() != core.owner:
            core.refuse_closed()
        if core.closing:
            raise RuntimeError("cannot schedule new futures after the pool was closed")
        return self._threads.submit(work)

    def close(self) -> None:
        """The pool is closed: what waits is told so, and the threads end."""
        self._threads.shutdown(wait=False)

    def _call(self, body: Any) -> Any:
        core = self._core
        worker, span = core.lend_for_function()
        if worker is None:
            worker, body, span = wait_for_worker(core, PICKLED, body, span)
        try:
            frame = core.begin(worker, PICKLED, body, span, False)
        except BaseException as error:
            core.not_begun(worker, span, error)
            raise
        return converse(core, worker, frame)


class SandboxExecutor(Executor):
    """Runs functions in a pool's workers. What raises there is FunctionFailed, what dies WorkerLost, and the next one is served."""

    def __init__(self, sender: FunctionSender, pool: object) -> None:
        self._sender = sender
        self._pool = pool  # which would end if nobody held it; a future holds its executor until it is done
        self._max_workers = sender.workers  # Dask reads it
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._shut = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As Executor's. A function or an argument that cannot be pickled is InvalidArgument, in the future."""
        work = self._sender.prepare(fn, args, kwargs)
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future = self._sender.start(work)
            self._open.add(future)
        future.add_done_callback(self._settled)
        return future

    def _settled(self, future: Future[Any]) -> None:
        self._open.discard(future)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **more: Any
    ) -> Iterator[T]:
        """As Executor's: `chunksize` calls are sent, run and answered together, as a ProcessPoolExecutor does."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return _flat(super().map(_Each(fn), chunks, timeout=timeout, **more))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's signature
        """As Executor's. The pool stays open, and gives other executors."""
        with self._lock:
            self._shut = True
        left = [future for future in self._open.copy() if not (cancel_futures and future.cancel())]
        if wait:
            _wait(left)


_wait = wait  # `shutdown` has a parameter of this name


def _wraps_a_task(fn: object) -> bool:
    """By identity: what a function says of itself is no reason to run it on this side."""
    dask = sys.modules.get(DASK_WORKER)
    return dask is not None and any(fn is getattr(dask, name, None) for name in WRAPPERS)


def _refuse(error: PyprocError, cause: BaseException) -> NoReturn:
    raise error from cause


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
    while chunk := tuple(islice(calls, size)):
        yield chunk


def _flat(chunks: Iterator[Any]) -> Iterator[Any]:
    for chunk in chunks:
        yield from chunk
