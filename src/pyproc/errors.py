"""The closed set of errors that a caller can meet (contract, section 4).

Rules: built on this side of the boundary only; `from_code` is a table, never a class named by a peer; a message is safe
to show. What a function raised stays in the log under `error_id`.
"""

from __future__ import annotations

from typing import ClassVar


class PyprocError(Exception):
    """Root of everything that pyproc raises."""


class ConfigError(PyprocError):
    """An option, a file or an argument is wrong; the text names the key, the value and the remedy."""

    exit_code = 78


class ProtectionUnavailable(PyprocError):
    """A required layer is missing: `.layer`, `.remedy`. pyproc refuses to start rather than run with less."""

    exit_code = 78

    def __init__(self, message: str, *, layer: str = "", remedy: str = "") -> None:
        super().__init__(f"{message}; remedy: {remedy}" if remedy else message)
        self.layer = layer
        self.remedy = remedy


class CallError(PyprocError):
    """A call that did not end well: `.code`, `.message` (safe to show), `.error_id` (the log's), `.retryable`."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, error_id: str | None = None, path: str | None = None, bound: str | None = None,
        reason: str | None = None, retry_after: float | None = None, may_have_run: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_id = error_id
        self.path = path
        self.bound = bound
        self.reason = reason
        self.retry_after = retry_after
        self.may_have_run = may_have_run

    def fields(self) -> dict[str, object]:
        """code, message and every further field that applies, for JSON."""
        optional = {name: getattr(self, name)
                    for name in ("error_id", "path", "bound", "reason", "retry_after", "may_have_run")}
        return {"code": self.code, "message": self.message, **{k: v for k, v in optional.items() if v is not None}}

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, {**self.__dict__})


def _rebuild(kind: type[CallError], message: str, state: dict[str, object]) -> CallError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class InvalidArgument(CallError):
    """The body or an option does not fit; `.path` says where."""

    code, http_status, exit_code = "invalid_argument", 400, 65


class Unauthenticated(CallError):
    """Nobody known is calling."""

    code, http_status, exit_code = "unauthenticated", 401, 77


class PermissionDenied(CallError):
    """The caller may not call this method."""

    code, http_status, exit_code = "permission_denied", 403, 77


class NotFound(CallError):
    """No such method; `functions()` lists them."""

    code, http_status, exit_code = "not_found", 404, 66


class PayloadTooLarge(CallError):
    """A request or a result is beyond its limit."""

    code, http_status, exit_code = "payload_too_large", 413, 65


class ResourceExhausted(CallError):
    """A bound was met: `.bound` (rate, queue, connections, memory, …), `.retry_after` in seconds."""

    code, http_status, exit_code, retryable = "resource_exhausted", 429, 75, True


class FunctionFailed(CallError):
    """The function raised; the cause is in the log under `.error_id`."""

    code, http_status, exit_code = "function_failed", 422, 1


class Cancelled(CallError):
    """The caller gave up, and the call was ended."""

    code, http_status, exit_code = "cancelled", 499, 130


class DeadlineExceeded(CallError):
    """The time was over; a worker that was still running was killed."""

    code, http_status, exit_code = "deadline_exceeded", 504, 124


class WorkerLost(CallError):
    """The worker died in the call: `.reason` by kernel evidence, `.may_have_run`."""

    code, http_status, exit_code = "worker_lost", 502, 71


class Unavailable(CallError):
    """No worker can serve now; `.retry_after` in seconds where it is known."""

    code, http_status, exit_code, retryable = "unavailable", 503, 69, True


class InternalError(CallError):
    """pyproc itself failed; the log has the cause under `.error_id`."""

    code, http_status, exit_code = "internal", 500, 70


CLASSES: dict[str, type[CallError]] = {
    kind.code: kind
    for kind in (InvalidArgument, Unauthenticated, PermissionDenied, NotFound, PayloadTooLarge, ResourceExhausted,
                 FunctionFailed, Cancelled, DeadlineExceeded, WorkerLost, Unavailable, InternalError)
}


def from_code(code: str, message: str, *, error_id: str | None = None, path: str | None = None,
              bound: str | None = None) -> CallError:
    """The error for a code of the closed set; an unknown code is InternalError."""
    return CLASSES.get(code, InternalError)(message, error_id=error_id, path=path, bound=bound)
