"""What an exception becomes on the wire: a code of the closed set, and a report that only the supervisor's log sees.

An exception's text, cause, notes, group, repr and locals never reach the caller, unless it is a PublicError or of a type
that `expose(public_errors=…)` lists. Built defensively: a hostile `__str__` must not break the answer.
"""

from __future__ import annotations

import errno
import traceback
from typing import NamedTuple

from pyproc_wire.limits import PUBLIC_TEXT_BYTES, REPORT_BYTES
from pyproc_wire.messages import Report
from pyproc_worker.call import Cancelled
from pyproc_worker.registry import BadBody

GENERIC = "Processing failed"
SCRATCH_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PublicError(Exception):
    """Its text may reach the caller, at most 4 KiB of it."""


class Failure(NamedTuple):
    """The arguments of WorkerConnection.failure."""

    code: str
    error: str
    path: str | None = None
    bound: str | None = None
    public: bool = False
    report: Report | None = None


def classify(error: BaseException, public_errors: tuple[type[BaseException], ...] = ()) -> Failure:
    """The answer for an exception that a function raised."""
    if isinstance(error, BadBody):
        return Failure("invalid_argument", f"{error.text} at {error.path}", error.path, public=True)
    if isinstance(error, (PublicError, *public_errors)):
        return Failure("function_failed", _text(error), public=True)
    if isinstance(error, Cancelled):
        return Failure("cancelled", "the caller gave up")
    bound = _bound(error)
    if bound is not None:
        return Failure("resource_exhausted", f"the function met its limit of {bound}", bound=bound, report=_report(error))
    return Failure("function_failed", GENERIC, report=_report(error))


def _bound(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        return "processes"
    if isinstance(error, OSError):
        if error.errno in SCRATCH_FULL:
            return "scratch"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "open_files"
        if error.errno == errno.ENOMEM:
            return "memory"
        if error.errno == errno.EAGAIN and isinstance(error, BlockingIOError) and error.filename is None:
            return "processes"
    return None


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        return GENERIC
    return text.encode("utf-8", "backslashreplace")[:PUBLIC_TEXT_BYTES].decode("utf-8", "ignore")


def _report(error: BaseException) -> Report:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        try:
            text = "".join(traceback.format_tb(error.__traceback__)) + "(the exception cannot be shown)"
        except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
            text = "(the exception cannot be shown)"
    tail = text.encode("utf-8", "backslashreplace")[-(REPORT_BYTES - 1024):].decode("utf-8", "ignore")
    return Report(type=type(error).__name__[:200], traceback=tail)
