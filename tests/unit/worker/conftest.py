"""A worker's loop in a thread, and the supervisor's end of its channel: real bytes through pipes, no process."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyproc_wire.connection import CallerConnection, Failed, Part, Ready, Succeeded
from pyproc_worker import arena, loop, stdio
from pyproc_worker import channel as worker_channel
from pyproc_worker.registry import Registry

arena.ARENA_ANSWERS = arena.ARENA_REQUESTS = -1  # no arena: at a worker's numbers this process may have any file, pytest's own even


class Channel:
    """The supervisor's end. `call` gives a value or the Failed event; `events` whatever arrives next."""

    def __init__(self, registry: Registry, *, response_limit: int = 1 << 20) -> None:
        requests, self.requests = os.pipe()
        self.answers, answers = os.pipe()
        self._ours = [self.requests, self.answers]
        greeting, inside = socket.socketpair()
        channel = worker_channel.Channel(requests, answers, inside.detach())
        self.connection = CallerConnection()
        self.error: BaseException | None = None
        self._pending: list[Any] = []
        self._id = 0

        def serve() -> None:
            try:
                loop.prepare(channel, registry, request_limit=1 << 20, response_limit=response_limit)()
            except BaseException as error:
                self.error = error
            finally:
                os.close(requests)
                os.close(answers)

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        with greeting:
            self._pending += self.connection.receive(greeting.recv(65536))
        self.ready = self.take()
        assert type(self.ready) is Ready

    def send(self, method: str, body: object = None, **fields: Any) -> int:
        self._id += 1
        self.write(self.connection.request(self._id, method, body, **fields))
        return self._id

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.requests, data) :]

    def read(self) -> bytes:
        assert select.select([self.answers], [], [], 10)[0], "the worker says nothing"
        return os.read(self.answers, 65536)

    def take(self) -> Any:
        while not self._pending:
            data = self.read()
            assert data, "the worker has hung up"
            self._pending += self.connection.receive(data)
        return self._pending.pop(0)

    def value(self, event: Any) -> Any:
        assert type(event) in (Succeeded, Part), event
        return self.connection.value(event.body)

    def call(self, method: str, body: object = None, **fields: Any) -> Any:
        self.send(method, body, **fields)
        return self.value(self.take())

    def fail(self, method: str, body: object = None, **fields: Any) -> Failed:
        self.send(method, body, **fields)
        event = self.take()
        assert type(event) is Failed, event
        return event

    def close(self) -> None:
        while self._ours:
            os.close(self._ours.pop())
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def open_channel() -> Iterator[Callable[..., Channel]]:
    """`open_channel(function, …, response_limit=…)`: a worker that exposes these functions."""
    opened: list[Channel] = []
    streams = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__

    def start(*functions: Any, registry: Registry | None = None, **options: Any) -> Channel:
        registry = registry or Registry()
        for function in functions:
            registry.add(function)
        registry.freeze()
        opened.append(Channel(registry, **options))
        return opened[-1]

    try:
        yield start
        for channel in opened:
            channel.close()
    finally:
        stdio._installed = None
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
