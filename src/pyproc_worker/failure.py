"""What an exception becomes: a code of the closed set for the caller, and a report for the supervisor's log.

An exception's text, cause, notes, group, repr and locals never stand in what the caller sees. Two texts do: that of a
`PublicError` or of a type that `expose(public_errors=…)` lists, and what we say ourselves about a body or a result.

Exceptions are foreign code: `__str__`, `__class__`, `__traceback__`, `errno` and `__name__` may raise or lie. Types are
compared by `type()`, fields are read through the built-in descriptors, every text is built under a net, and whatever
slips through becomes `Processing failed` without a report. That is for odd exceptions, not a wall: a hostile function
owns this process, and what it makes us say is checked outside.

A limit that was met as an exception is `resource_exhausted` with its bound. A refused fork has only an errno that other
calls have too, so the expression that raised it is looked at.
"""

from __future__ import annotations

import errno
import traceback
from typing import Final

from msgspec import Struct

from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue, without_controls
from pyproc_wire.limits import PUBLIC_TEXT_BYTES, REPORT_BYTES, TYPE_NAME_CHARS
from pyproc_wire.messages import Refused, Report
from pyproc_wire.texts import cut
from pyproc_worker.call import Call, Cancelled
from pyproc_worker.misfit import InvalidBody
from pyproc_worker.refusal import FORKS, field, names_behind, refused_of, traceback_of

GENERIC: Final = "Processing failed"

_CUT: Final = "\n[... cut ...]\n"
_HEAD_CHARS: Final = 8 * 1024
"""Characters of a long report that are kept from its start: the outermost frames and the first cause."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORK_REFUSED: Final = frozenset({errno.EAGAIN, errno.EPERM})
_THREAD_REFUSED: Final = ("can't start new thread", "can't start new thread at interpreter shutdown")


class PublicError(Exception):
    """Its text may reach the caller: at most 4 KiB, control characters escaped."""


class Failure(Struct, frozen=True):
    """The arguments of a connection's `failure`."""

    code: str
    error: str
    path: str | None = None
    bound: str | None = None
    public: bool = False
    report: Report | None = None


def classify(error: BaseException, *, call: Call | None = None, public_errors: tuple[type[BaseException], ...] = ()) -> Failure:
    """The answer for what a function raised. Never raises.

    An exception of ours that a function raises is a failure like any other: what we say about a body and a result is
    told by `refused_body` and `unsendable`, by where it was found and not by its type.
    """
    try:
        if type(error) is Unsendable and isinstance(error, Unsendable):
            return unsendable(error.cause)
        return _gave_up(error, call) or _limit(error) or _public(error, public_errors) or _private(error)
    except BaseException:  # noqa: BLE001 - the exception's own code raised; the answer below has none of it
        return Failure("function_failed", GENERIC)


def refused_body(error: BaseException, public_errors: tuple[type[BaseException], ...] = ()) -> Failure:
    """The answer for what was raised before the function began. Never raises."""
    if isinstance(error, InvalidBody):
        cause = error.cause
        if cause is None:
            return Failure("invalid_argument", without_controls(error.text), error.path, public=True)
        said = classify(cause, public_errors=public_errors)  # by the check of a type, whose words are the script's
        text = f"{said.error} at {error.path}" if said.public else error.text
        return Failure("invalid_argument", text, error.path, public=True, report=said.report)
    if isinstance(error, RemoteProtocolError):
        return Failure("invalid_argument", f"{without_controls(str(error))} at $", "$", public=True)
    if isinstance(error, LocalProtocolError):  # an array has come and numpy is not there
        return Failure("function_failed", without_controls(str(error)), public=True)
    return classify(error, public_errors=public_errors)


def unsendable(error: BaseException) -> Failure:
    """The answer for a result, or a part of one, that could not be sent. Never raises."""
    if isinstance(error, UnencodableValue):
        return Failure("function_failed", without_controls(f"result cannot be sent: {error}"), error.path, public=True)
    if isinstance(error, LocalProtocolError) and error.code == "payload_too_large":
        text = f"result cannot be sent: {error}; stream it in parts, or raise limits.response"
        return Failure("payload_too_large", text, bound="response", public=True)
    return classify(error)  # a property of a result has raised


class Unsendable(Exception):
    """A part of a stream could not be sent; `cause` says why."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("part cannot be sent")
        self.cause = cause


def _gave_up(error: BaseException, call: Call | None) -> Failure | None:
    kind = type(error)
    if call is not None and (issubclass(kind, Cancelled) or field(type, "__name__", kind) == "CancelledError"):
        if call.cancelled:
            return Failure("cancelled", "call was cancelled", public=True)
        if call.late:
            return Failure("deadline_exceeded", f"deadline has passed: {call.allowed}; give it more time", public=True)
    return None


def _limit(error: BaseException) -> Failure | None:
    bound = _bound(error)
    if bound is None:
        return None
    text = f"function met its limit: {bound}"
    return Failure("resource_exhausted", text, bound=bound, public=True, report=report_of(error))


def _bound(error: BaseException) -> str | None:
    kind = type(error)
    if issubclass(kind, MemoryError):
        return "memory"
    if kind is RuntimeError:
        return "processes" if error.args and error.args[0] in _THREAD_REFUSED else None
    if not issubclass(kind, OSError):
        return None
    code = field(OSError, "errno", error)
    if code in _FULL:
        return "scratch"
    if code == errno.EMFILE:
        return "open_files"
    if code == errno.ENOMEM:
        return "memory"
    return "processes" if code in _FORK_REFUSED and not names_behind(traceback_of(error)).isdisjoint(FORKS) else None


def _public(error: BaseException, public_errors: tuple[type[BaseException], ...]) -> Failure | None:
    if not issubclass(type(error), (PublicError, *public_errors)):
        return None
    text = str.__str__(str(error))  # a subclass of str has methods of its own
    report = report_of(error) if _refused(error) is not None else None  # its text is for the caller, the refusal for the log
    return Failure("function_failed", cut(without_controls(text), PUBLIC_TEXT_BYTES), public=True, report=report)


def _private(error: BaseException) -> Failure:
    return Failure("function_failed", GENERIC, report=report_of(error))


def report_of(error: BaseException) -> Report | None:
    """Type, traceback and refusal for the log, at most 64 KiB of text; as much as the exception's own code lets be built."""
    name, refused = _type_name(error), _refused(error)
    for build in (_full_text, _frames_text):
        try:
            return Report(name, _bounded(build(error)), refused)
        except BaseException:  # noqa: BLE001, S112 - the exception's own code raised; the next way asks less of it
            continue
    return Report(name, name, refused)


def _refused(error: BaseException) -> Refused | None:
    try:
        return refused_of(error)
    except BaseException:  # noqa: BLE001 - as above
        return None


def _type_name(error: BaseException) -> str:
    return str(field(type, "__name__", type(error)))[:TYPE_NAME_CHARS]


def _full_text(error: BaseException) -> str:
    lines = traceback.TracebackException(type(error), error, traceback_of(error)).format()
    return "".join(lines)


def _frames_text(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(traceback_of(error), limit=-50))
    return f"Traceback (most recent call last):\n{frames}{_type_name(error)}: (its text cannot be built)\n"


def _bounded(text: str) -> str:
    """Start and end of a text that is too long for a report, as text that has a UTF-8 form."""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= REPORT_BYTES:
        return raw.decode()
    tail = raw[-(REPORT_BYTES - _HEAD_CHARS - len(_CUT)) :]
    return raw[:_HEAD_CHARS].decode("utf-8", "ignore") + _CUT + tail.decode("utf-8", "ignore")
