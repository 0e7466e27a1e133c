"""What an exception becomes on the wire: a code of the closed set, and a report that only the supervisor's log sees.

An exception's text, cause, notes, group, repr and locals never reach the caller, unless it is a PublicError or of a type
that `expose(public_errors=…)` lists; then its own text does, and nothing of what hangs on it. Built defensively: a
hostile `__str__` or a type without a proper name must not break the answer.

A limit that the function meets is told by its kind and not by its text: which one it was is read from the errno. EAGAIN
and EPERM say "no more processes" only where the failing line really forks or starts a thread; the code object knows.
"""

from __future__ import annotations

import errno
import traceback
from typing import NamedTuple

from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue, without_controls
from pyproc_wire.limits import PUBLIC_TEXT_BYTES, REPORT_BYTES
from pyproc_wire.messages import Report
from pyproc_worker.call import Call, Cancelled
from pyproc_worker.registry import BadBody

GENERIC = "Processing failed"
SCRATCH_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORK_REFUSED = (errno.EAGAIN, errno.EPERM)  # over RLIMIT_NPROC or pids.max; by a seccomp filter
STARTERS = frozenset({
    "fork", "forkpty", "posix_spawn", "posix_spawnp", "_fork_exec", "fork_exec",
    "start_new_thread", "_start_new_thread", "_start_joinable_thread",
})  # fmt: skip
TYPE_CHARS = 200


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


OUT_OF_MEMORY = Failure("resource_exhausted", "the function met its limit of memory", bound="memory", public=True)
"""Made beforehand: for when not even the making of a failure succeeds."""


def classify(error: BaseException, public_errors: tuple[type[BaseException], ...] = (),
             call: Call | None = None) -> Failure:
    """The answer for an exception that a function raised. Never raises anything but MemoryError."""
    if isinstance(error, (PublicError, *public_errors)):
        return Failure("function_failed", _text(error), public=True)
    if isinstance(error, Cancelled) and call is not None:
        if call.abandoned:
            return Failure("cancelled", "the caller gave up", public=True)
        if call.late:
            return Failure("deadline_exceeded", "the deadline has passed", public=True)
    bound = _bound(error)
    if bound is not None:
        return Failure("resource_exhausted", f"the function met its limit of {bound}", bound=bound, public=True,
                       report=_report(error))
    return Failure("function_failed", GENERIC, report=_report(error))


def bad_body(error: BadBody | RemoteProtocolError) -> Failure:
    """The answer for a body that does not fit the function or the limits of a value."""
    path = error.path if isinstance(error, BadBody) else "$"
    report = _report(error.__cause__) if isinstance(error, BadBody) and error.foreign and error.__cause__ else None
    return Failure("invalid_argument", f"{error.args[0]} at {path}", path, public=True, report=report)


def unsendable(error: LocalProtocolError) -> Failure:
    """The answer for a result that cannot be carried or is too large."""
    if isinstance(error, UnencodableValue):
        return Failure("function_failed", f"the result cannot be sent: {error}", error.path, public=True)
    return Failure("payload_too_large", f"the result is too large: {error}", bound="response", public=True)


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
        if error.errno in FORK_REFUSED and error.filename is None and _starts_processes(error):
            return "processes"
    return None


def _starts_processes(error: BaseException) -> bool:
    """Whether the innermost Python frame names a call that makes a process or thread."""
    step = error.__traceback__
    if step is None:
        return False
    while step.tb_next is not None:
        step = step.tb_next
    return not STARTERS.isdisjoint(step.tb_frame.f_code.co_names)


def _text(error: BaseException) -> str:
    try:
        text = "".join(str(error))  # an exact str, whatever subclass `__str__` returned
        return without_controls(text).encode("utf-8", "backslashreplace")[:PUBLIC_TEXT_BYTES].decode("utf-8", "ignore")
    except MemoryError:
        raise
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        return GENERIC


def _report(error: BaseException) -> Report:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
        try:
            text = "".join(traceback.format_tb(error.__traceback__)) + "(the exception cannot be shown)"
        except BaseException:  # noqa: BLE001 - user code may raise anything; it is answered or logged
            text = "(the exception cannot be shown)"
    tail = text.encode("utf-8", "backslashreplace")[-(REPORT_BYTES - 1024):].decode("utf-8", "ignore")
    return Report(type=_type_name(error), traceback=tail)


def _type_name(error: BaseException) -> str:
    # Not type(error).__name__: a metaclass may have put foreign code there.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name.encode("utf-8", "backslashreplace").decode()[:TYPE_CHARS]
