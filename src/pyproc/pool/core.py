"""What both faces of a pool share: options, admission, checkout of workers, and from an event to a value or an error.

Checkout is fair. An idle worker is taken without a lock (deque.pop is atomic) unless somebody is queued; a worker that
comes back goes to the first in the queue. The order append-then-look on both sides excludes a lost wake-up: whoever
comes second sees what the first one appended. A refusal is a typed error, never a hang.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import secrets
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyproc.config.options import Limits, Sandbox
from pyproc.config.units import parse_time
from pyproc.errors import (
    CallError,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    ProtectionUnavailable,
    PyprocError,
    ResourceExhausted,
    Unavailable,
    WorkerLost,
    from_code,
)
from pyproc.supervisor.children import Supervisor
from pyproc.supervisor.spec import WorkerSpec
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed, Part, Succeeded
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue

log = logging.getLogger("pyproc")
SOURCE_BYTES = 16 << 20  # a script beyond this is not a script
WORKERS_MAX, QUEUE_DEFAULT = 1024, 1000
RETRY_SECONDS = 0.05  # told to a caller whom a full queue refused
_live: weakref.WeakSet[Core] = weakref.WeakSet()


class Waiter:
    """One queued call: `wake(worker or None)` is called once, from whatever thread gives a worker back."""

    __slots__ = ("wake", "worker")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.worker: Worker | None = None


class Core:
    """Admission and checkout of one pool."""

    def __init__(
        self, script: str | os.PathLike[str], *, workers: int = 1, isolation: str = "worker",
        sandbox: Sandbox | None = None, limits: Limits | None = None, timeout: str | float = 30.0,
        queue: int = QUEUE_DEFAULT, max_requests: int = 0, env: Mapping[str, str] | None = None,
        python: str | None = None, preload: Sequence[str] = (), concurrency: int = 1, prefetch: int = 1,
        zygote: bool = True, name: str = "pool",
    ) -> None:
        if sys.platform != "linux":
            raise ProtectionUnavailable(f"pools need Linux, this is {sys.platform}", layer="platform",
                                        remedy="run the pool on Linux; Client works here")
        _whole("workers", workers, 1, WORKERS_MAX)
        _whole("queue", queue, 0, 1 << 20)
        _whole("max_requests", max_requests, 0, 1 << 40)
        if isolation not in ("worker", "call"):
            remedy = "tenants exist in the service only" if isolation == "tenant" else "write worker or call"
            raise ConfigError(f"isolation is {isolation!r}; {remedy}")
        for option, value in (("concurrency", concurrency), ("prefetch", prefetch)):
            if value != 1:
                raise ConfigError(f"{option} is {value!r}; this version serves one call at a time in a worker, write 1")
        path = os.path.abspath(os.fspath(script))
        environment = dict(env or {})
        for key, text in environment.items():
            if not isinstance(key, str) or not isinstance(text, str) or "=" in key or "\0" in key + text or not key:
                raise ConfigError(f"env has {key!r}: {text!r}; names and values are text without NUL, names without '='")
        self.timeout = parse_time("timeout", timeout)
        self.isolation = isolation
        self.max_requests = 1 if isolation == "call" else max_requests
        self.queue = queue
        self.name = name
        self.ids = itertools.count(1)
        self.counts = {"accepted": 0, "ok": 0, "failed": 0, "deadline": 0, "cancelled": 0, "lost": 0}
        self.closed: PyprocError | None = None
        self.owner = os.getpid()
        self._idle: deque[Worker] = deque()
        self._waiters: deque[Waiter] = deque()
        self._lock = threading.Lock()
        self.supervisor = Supervisor(
            WorkerSpec(name=name, script=path, source=_source(path), workers=workers, sandbox=sandbox or Sandbox(),
                       limits=limits or Limits(), environment=environment, python=python, preload=tuple(preload),
                       solo=not zygote), self)
        _live.add(self)
        try:
            self.supervisor.start()
        except PyprocError as error:
            self.closed = error
            raise

    # -- told by the supervisor --------------------------------------------------------------------------------------

    def worker_ready(self, worker: Worker) -> None:
        """A worker can be lent, for the first time or again."""
        self._idle.append(worker)
        if self._waiters:
            self._match()

    def worker_gone(self, worker: Worker) -> None:
        """A worker ended; if nobody was using it, nobody needs to know."""
        try:
            self._idle.remove(worker)
        except ValueError:
            return

    def failed(self, error: PyprocError | None) -> None:
        """The pool cannot serve (or can again, with None): whoever is queued gets the error."""
        self.closed = error
        if error is not None:
            with self._lock:
                waiting, self._waiters = list(self._waiters), deque()
            for waiter in waiting:
                waiter.wake()

    # -- for the faces -----------------------------------------------------------------------------------------------

    def deadline(self, method: str, timeout: float | str | None) -> float:
        """When the call must be over, on time.monotonic(). Raises NotFound, InvalidArgument, Unavailable."""
        if self.closed is not None:
            self.refuse_closed()
        if timeout is None:
            seconds = self.timeout
        elif timeout == 0:
            raise DeadlineExceeded("the deadline is 0 s: there is no time to call anything")
        else:
            try:
                seconds = min(self.timeout, parse_time("timeout", timeout))
            except ConfigError as error:
                raise InvalidArgument(str(error)) from error
        function = self.supervisor.functions.get(method) if isinstance(method, str) else None
        if function is None:
            known = ", ".join(sorted(self.supervisor.functions)[:20])
            raise NotFound(f"no function {str(method)[:200]!r} is exposed; exposed are {known}")
        own = function.get("timeout")
        return time.monotonic() + (seconds if own is None else min(seconds, own))

    def refuse_closed(self) -> None:
        """Raise why this pool serves nothing."""
        error = self.closed
        if os.getpid() != self.owner:
            raise PyprocError(f"this pool was made in process {self.owner} and cannot be used after a fork; make one here")
        if isinstance(error, CallError):
            raise type(error)(error.message, reason=error.reason, retry_after=error.retry_after)
        if error is not None:
            raise error

    def take(self) -> Worker | None:
        """An idle worker, or None when the call has to queue."""
        if self._waiters:
            return None
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return None
            if worker.doomed is None:
                return worker

    def enqueue(self, waiter: Waiter) -> None:
        """Join the queue. Raises ResourceExhausted when it is full."""
        if len(self._waiters) >= self.queue:
            raise ResourceExhausted(f"queue is full with {self.queue} calls; try again later or give the pool more workers",
                                    bound="queue", retry_after=RETRY_SECONDS)
        self._waiters.append(waiter)
        if self._idle:
            self._match()

    def leave(self, waiter: Waiter) -> Worker | None:
        """Leave the queue; a worker that was given meanwhile is returned."""
        with self._lock:
            try:
                self._waiters.remove(waiter)
            except ValueError:
                return waiter.worker
        return None

    def _match(self) -> None:
        woken = []
        with self._lock:
            while self._waiters and self._idle:
                worker = self._idle.popleft()
                if worker.doomed is None:
                    waiter = self._waiters.popleft()
                    waiter.worker = worker
                    woken.append(waiter)
        for waiter in woken:
            waiter.wake()

    def begin(self, worker: Worker, method: str, body: Any, deadline: float, *, stream: bool = False) -> bytes:
        """Encode the request and arm the deadline; the worker is busy from here on. Raises CallError; gives it back then."""
        id = next(self.ids)
        left = max(1, int((deadline - time.monotonic()) * 1000))
        try:
            frame = worker.connection.request(id, method, body, deadline_ms=left, stream=stream)
        except (LocalProtocolError, ValueError, TypeError, OverflowError, RecursionError) as error:
            self.give_back(worker)
            if isinstance(error, UnencodableValue):
                raise InvalidArgument(f"body cannot be sent: {error}", path=error.path) from error
            if "limit" in str(error) and isinstance(error, LocalProtocolError):
                raise PayloadTooLarge(f"{error}; raise limits.request or send less") from error
            raise InvalidArgument(f"body cannot be sent: {error}") from error
        worker.call_id = id
        worker.method = method
        worker.calls += 1
        worker.deadline = deadline
        self.counts["accepted"] += 1
        if deadline < self.supervisor.wake_at:
            self.supervisor.wake_at = deadline
            self.supervisor.poke()
        return frame

    def give_back(self, worker: Worker) -> None:
        """The call is over: lend the worker to the next one, or retire it."""
        worker.deadline = math.inf
        worker.call_id = 0
        if worker.doomed is not None:
            return
        if self.max_requests and worker.calls >= self.max_requests:
            self.supervisor.retire(worker)
            return
        self._idle.append(worker)
        if self._waiters:
            self._match()

    def finish(self, worker: Worker, event: Succeeded | Failed) -> Any:
        """The value of a success, or raise the error of a failure; the worker is given back first."""
        if event.output:
            self.supervisor.drain(worker)
        if type(event) is Succeeded:
            try:
                value = worker.connection.value(event.body)
            except RemoteProtocolError as error:
                raise self.lost(worker, error) from error
            self.give_back(worker)
            self.counts["ok"] += 1
            return value
        self.give_back(worker)
        raise self._failure(worker, event)  # type: ignore[arg-type]

    def _failure(self, worker: Worker, event: Failed) -> CallError:
        bucket = {"cancelled": "cancelled", "deadline_exceeded": "deadline"}.get(event.code, "failed")
        self.counts[bucket] += 1
        error_id = secrets.token_hex(8)
        if event.report is not None:
            log.error("%s error_id=%s pool=%s worker=%s method=%s kind=%s\n%s", event.code, error_id, self.name, worker.name,
                      worker.method, _one_line(event.report.type), _printable(event.report.traceback))
        text = _one_line(event.error) if event.public or event.code != "function_failed" else "Processing failed"
        return from_code(event.code, text, error_id=error_id, path=event.path, bound=event.bound)

    def lost(self, worker: Worker, cause: BaseException | None = None) -> CallError:
        """The error for a worker whose channel ended or broke the protocol, by the kernel's evidence."""
        if isinstance(cause, RemoteProtocolError):
            log.error("protocol_violation pool=%s worker=%s cause=%s", self.name, worker.name, _one_line(str(cause)))
            self.supervisor.condemn(worker, "protocol")
        method = worker.method
        death = self.supervisor.autopsy(worker)
        worker.sock.close()
        if death.reason == "deadline":
            self.counts["deadline"] += 1
            return DeadlineExceeded(f"call of {method!r} was not answered in time; its worker was killed")
        if death.reason == "cancelled":
            self.counts["cancelled"] += 1
            return Cancelled(f"call of {method!r} was cancelled")
        self.counts["lost"] += 1
        return WorkerLost(f"the worker died in a call of {method!r}: {death.reason}", reason=death.reason, may_have_run=True,
                          error_id=secrets.token_hex(8))

    def part(self, worker: Worker, event: Part) -> Any:
        """The value of one part of a stream."""
        try:
            return worker.connection.value(event.body)
        except RemoteProtocolError as error:
            raise self.lost(worker, error) from error

    def abandoned(self, worker: Worker) -> None:
        """The caller left in the middle of a call."""
        self.counts["cancelled"] += 1
        self.supervisor.abandon(worker)

    def late_in_queue(self, method: str) -> CallError:
        """The error for a call whose time ran out, or whose pool ended, before it got a worker."""
        if self.closed is not None:
            error = self.closed
            text = error.message if isinstance(error, CallError) else str(error)
            return Unavailable(text)
        return DeadlineExceeded(f"call of {method!r} found no idle worker in time; give the pool more workers or time")

    def status(self) -> dict[str, Any]:
        """Workers, states, layers in force, ledger."""
        counts = dict(self.counts)
        done = sum(counts[name] for name in ("ok", "failed", "deadline", "cancelled", "lost"))
        ledger = {**counts, "in_flight": counts["accepted"] - done}
        return {"name": self.name, "isolation": self.isolation, "ledger": ledger, "queued": len(self._waiters),
                **self.supervisor.status()}

    def forget(self) -> None:
        """After a fork, in the child: nothing of the pool stays open."""
        self.closed = PyprocError("used after a fork")
        self._idle.clear()
        self._waiters.clear()
        self.supervisor.forget()


def _forget_all() -> None:
    for core in list(_live):
        if core.owner != os.getpid():
            core.forget()


os.register_at_fork(after_in_child=_forget_all)


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}, possible are {low} to {high}")


def _source(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(SOURCE_BYTES + 1)
        if len(data) > SOURCE_BYTES:
            raise ConfigError(f"script {path!r} is longer than 16 MiB; put data into files and list them in sandbox.read")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"script {path!r} cannot be read: {error}; give the path of a Python file") from error


def _one_line(text: str) -> str:
    text = text[:4096]
    return text if text.isprintable() else text.encode("unicode_escape", "backslashreplace").decode("ascii")


def _printable(text: str) -> str:
    return "\n".join("    " + (line if line.isprintable() else _one_line(line)) for line in text.splitlines())
