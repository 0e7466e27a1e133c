"""The closed set of errors that a caller can meet (contract, section 4).

Rules: built on this side of the boundary only; `from_code` is a table, never a class named by a peer; a message is safe
to show. What a function raised stays in the log under `error_id`. Each class names its cause and the remedy. Every error
survives `pickle` and `copy` with all its fields, as executors and test runners carry errors between processes.
"""

from __future__ import annotations

from typing import ClassVar

PASSING = ("rate", "queue", "connections", "in_flight", None)  # bounds that others' work fills, and not the call itself
SHUTDOWN = "shutdown"  # the reason of an Unavailable for good
FIELDS = ("error_id", "path", "bound", "reason", "retry_after", "may_have_run")


class PyprocError(Exception):
    """Root of everything that pyproc raises.

    Cause: what the text says. Remedy: catch a class below it where one is to be treated apart.
    """


class ConfigError(PyprocError):
    """An option, a file or an argument is wrong.

    Cause: the key and the value in the text. Remedy: in the text too; nothing was started.
    """

    exit_code = 78


class ProtectionUnavailable(PyprocError):
    """A required layer is missing, and pyproc refuses to start rather than run with less: `.layer`, `.remedy`.

    Cause: this kernel, container or user cannot enforce `.layer`. Remedy: `.remedy`, or a machine that can; `pyproc doctor`
    shows which layers this one has.
    """

    exit_code = 78

    def __init__(self, message: str, *, layer: str = "", remedy: str = "") -> None:
        super().__init__(f"{message}; remedy: {remedy}" if remedy else message)
        self.layer = layer
        self.remedy = remedy


class CallError(PyprocError):
    """A call that did not end well: `.code`, `.message` (safe to show), `.error_id` (the log's), `.retryable`.

    Every class has all of FIELDS; those that do not apply are None. `.path` is where in the body (`$.key[2]`), `.bound` the
    bound that was met, `.reason` why in one word of the reference's tables, `.retry_after` seconds, `.may_have_run` whether
    the function may have begun. Cause and remedy: each class below.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70
    passes: ClassVar[bool] = False  # the same call may succeed later without any change

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

    @property
    def retryable(self) -> bool:
        """True if the same call may succeed when it is sent again unchanged."""
        return self.passes and not self.may_have_run

    def fields(self) -> dict[str, object]:
        """code, message and every further field that applies, for JSON."""
        optional = {name: getattr(self, name) for name in FIELDS}
        return {"code": self.code, "message": self.message, **{k: v for k, v in optional.items() if v is not None}}

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, {**self.__dict__})


def _rebuild(kind: type[CallError], message: str, state: dict[str, object]) -> CallError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class InvalidArgument(CallError):
    """The body or an option does not fit; `.path` says where.

    Cause: a missing, unknown or wrong value. Remedy: change the call; `functions()` has the schema.
    """

    code, http_status, exit_code = "invalid_argument", 400, 65


class Unauthenticated(CallError):
    """Nobody known is calling.

    Cause: no principal has this uid, or a credential is wrong or expired. Remedy: a valid credential, or a principal in
    `[access]`.
    """

    code, http_status, exit_code = "unauthenticated", 401, 77


class PermissionDenied(CallError):
    """The caller may not call this method.

    Cause: no role of the principal allows it, or one denies it. Remedy: ask for the grant.
    """

    code, http_status, exit_code = "permission_denied", 403, 77


class NotFound(CallError):
    """No such method.

    Cause: the name is not exposed, or stands in a pool in which the caller has no grant. Remedy: `functions()` lists them.
    """

    code, http_status, exit_code = "not_found", 404, 66


class PayloadTooLarge(CallError):
    """A request or a result is beyond its limit; `.bound` is `response` for a result.

    Cause: the size in the text. Remedy: send less, stream the result, or raise `limits.request` or `limits.response`.
    """

    code, http_status, exit_code = "payload_too_large", 413, 65


class ResourceExhausted(CallError):
    """A bound was met: `.bound` (rate, queue, connections, memory, …), `.retry_after` in seconds where it is known.

    Cause: more work than the bound admits, or a function that met its own limit (memory, processes, scratch). Remedy: try
    later, add workers, or raise the bound that is named.
    """

    code, http_status, exit_code, passes = "resource_exhausted", 429, 75, True

    @property
    def retryable(self) -> bool:
        """Not where the function met a limit of its own, which it will meet again."""
        return super().retryable and self.bound in PASSING


class FunctionFailed(CallError):
    """The function raised; the cause is in the log under `.error_id`.

    Cause: the function, or a result that cannot be carried (`.path`). Remedy: read the log; raise `PublicError` in the
    function to tell the caller more.
    """

    code, http_status, exit_code = "function_failed", 422, 1


class Cancelled(CallError):
    """The caller gave up, and the call was ended.

    Cause: a cancel, or the end of the caller's connection. Remedy: none is needed; the function may have run in part.
    """

    code, http_status, exit_code = "cancelled", 499, 130


class DeadlineExceeded(CallError):
    """The time was over; a worker that was still running was killed.

    Cause: the function or the queue took longer than `timeout`. Remedy: a longer timeout, more workers, a faster function.
    """

    code, http_status, exit_code = "deadline_exceeded", 504, 124


class WorkerLost(CallError):
    """The worker died in the call: `.reason` by kernel evidence, `.may_have_run`.

    Cause: `.reason` (oom, cpu_limit, seccomp, signal:SIGSEGV, exit:3, …). Remedy: by the reason, a higher limit or a
    repaired function; to send it again is safe if it is idempotent, or if `.may_have_run` is False (`.retryable`).
    """

    code, http_status, exit_code, passes = "worker_lost", 502, 71, True

    @property
    def retryable(self) -> bool:
        """Only a call that surely did not begin: unknown counts as begun."""
        return self.may_have_run is False


class Unavailable(CallError):
    """No worker can serve now; `.reason`, and `.retry_after` in seconds where it is known.

    Cause: workers that keep dying, a quarantine, a drain, or a closed pool. Remedy: try later; the log has the deaths.
    """

    code, http_status, exit_code, passes = "unavailable", 503, 69, True

    @property
    def retryable(self) -> bool:
        """Not where the pool was closed."""
        return super().retryable and self.reason != SHUTDOWN


class InternalError(CallError):
    """pyproc itself failed; the log has the cause under `.error_id`.

    Cause: a fault of pyproc, or an answer outside the closed set. Remedy: report it with the log's record.
    """

    code, http_status, exit_code = "internal", 500, 70


CLASSES: dict[str, type[CallError]] = {
    kind.code: kind
    for kind in (InvalidArgument, Unauthenticated, PermissionDenied, NotFound, PayloadTooLarge, ResourceExhausted,
                 FunctionFailed, Cancelled, DeadlineExceeded, WorkerLost, Unavailable, InternalError)
}


def from_code(
    code: str, message: str, *, error_id: str | None = None, path: str | None = None, bound: str | None = None,
    reason: str | None = None, retry_after: float | None = None, may_have_run: bool | None = None,
) -> CallError:
    """The error for a code of the closed set; an unknown code is InternalError."""
    return CLASSES.get(code, InternalError)(message, error_id=error_id, path=path, bound=bound, reason=reason,
                                            retry_after=retry_after, may_have_run=may_have_run)
