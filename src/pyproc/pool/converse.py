"""One call in a thread that may wait: its worker waited for, its request sent, its answer received."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

from msgspec import Raw

from pyproc.pool.admission import Span
from pyproc.pool.checkout import Waiter
from pyproc.pool.core import Core
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed, Part, Succeeded


def wait(core: Core, method: str, body: Any, span: Span, *, stream: bool = False) -> tuple[Worker, Raw, Span]:
    """A worker, the encoded body, and what is left of `span`. Raises CallError."""
    gate = threading.Lock()
    gate.acquire()
    waiter = Waiter(gate.release, span)
    try:
        core.queue(waiter, method, body, stream=stream)
        gate.acquire(timeout=max(0.0, waiter.deadline - monotonic()))
        return core.granted(waiter, method)
    except BaseException:
        core.interrupted(waiter)
        raise


def converse(core: Core, worker: Worker, frame: bytes, *, lend: bool = False) -> Any:
    """The call's result, or with `lend` a View of it. Raises a CallError; whatever else comes cancels the call."""
    id, channel, ended = worker.call_id, worker.channel, worker.finished.is_set
    try:
        with core.losing(worker):
            channel.send(frame, ended)
            return answer(core, worker, channel.receive(ended), lend=lend)
    except BaseException:
        core.left(worker, id)
        raise


def answer(core: Core, worker: Worker, data: bytes, *, lend: bool = False) -> Any:
    """As `converse` of a call of which `data` has arrived. Raises as the channel does, and CallError."""
    while True:
        for event in worker.connection.receive(data):
            if isinstance(event, Succeeded | Failed):
                return core.finish(worker, event, lend=lend)
            if not isinstance(event, Part):
                raise core.lost(worker)
        data = worker.channel.receive(worker.finished.is_set)
