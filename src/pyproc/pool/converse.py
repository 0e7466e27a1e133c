"""One call that has begun, in a thread that may wait: its request sent, its answer received."""

from __future__ import annotations

from typing import Any

from pyproc.pool.core import Core
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed, Part, Succeeded


def converse(core: Core, worker: Worker, frame: bytes, timeout: float | str | None) -> Any:
    """The call's result. Raises a CallError; whatever else comes cancels the call."""
    id, channel, ended = worker.call_id, worker.channel, worker.finished.is_set
    try:
        with core.losing(worker, timeout):
            channel.send(frame, ended)
            return answer(core, worker, channel.receive(ended), timeout)
    except BaseException:
        core.left(worker, id)
        raise


def answer(core: Core, worker: Worker, data: bytes, timeout: float | str | None) -> Any:
    """The call's result, of which `data` has arrived. Raises as the channel does, and CallError."""
    while True:
        for event in worker.connection.receive(data):
            if isinstance(event, Succeeded | Failed):
                return core.finish(worker, event)
            if not isinstance(event, Part):
                raise core.lost(worker, None, timeout)
        data = worker.channel.receive(worker.finished.is_set)
