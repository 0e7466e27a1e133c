"""A result that is looked at where the worker wrote it, while the worker is kept for it.

    call ──▶ answer ──▶ View.value, and the worker is lent to nobody else ──▶ release ──▶ the worker is idle again

The worker runs on and may change what is seen until then: bytes, and never their number, type or shape. What is still held of the
value after the release becomes a copy where it lies, and nobody changes that.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any


class View:
    """`value` is the result, its large arrays read-only and not copied; None from `release` on. A context manager that releases."""

    __slots__ = ("_release", "value")

    def __init__(self, value: Any, release: Callable[[], None]) -> None:
        self.value = value
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give the worker back. A second time does nothing."""
        release, self._release = self._release, None
        self.value = None
        if release is not None:
            release()

    def __enter__(self) -> View:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def __del__(self) -> None:
        if hasattr(self, "_release"):
            self.release()
