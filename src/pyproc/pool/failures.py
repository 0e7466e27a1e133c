"""What a caller is told of a call that went wrong, and what the log is told instead of the caller.

Rules: an error id leads to exactly one record of what happened: at level ERROR where something is kept from the caller, at INFO where
the record says no more than the error does. Beside it stands what the sandbox denied, if that is why (`supervisor.denied`). Text of a
worker is shown where it is public, and escaped everywhere.
"""

from __future__ import annotations

import difflib
import logging
import secrets
from collections.abc import Collection

from pyproc.errors import CallError, Cancelled, DeadlineExceeded, NotFound, WorkerLost, from_code
from pyproc.sandbox.denial import ENDING, limit_met
from pyproc.sandbox.verdict import Policy
from pyproc.supervisor import denied
from pyproc.supervisor.death import Death
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed
from pyproc_wire.errors import LocalProtocolError, printable

log = logging.getLogger("pyproc")
LINE_CHARS = 4096  # of one line of a worker's text
SHOWN_CHARS = 200  # of a method's name; the longest that can be exposed has 128
NAMED_MAX = 20  # functions
EXPOSES_NOTHING = "the script exposes nothing of its own, write @expose above a function"


def not_exposed(method: object, exposed: Collection[str]) -> NotFound:
    """The error for a function that is not there: a name like it, and those that are."""
    asked = str(method)[:SHOWN_CHARS]
    close = difflib.get_close_matches(asked, exposed, 1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    names = sorted(exposed)
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    nothing = f"; {EXPOSES_NOTHING}" if names == ["health"] else ""
    return NotFound(f"no function {asked!r} is exposed{meant} exposed are {', '.join(names[:NAMED_MAX])}{more}{nothing}")


def failed(policy: Policy, pool: str, worker: Worker, event: Failed) -> CallError:
    """The error for a failure that a worker answered; before it is given back, as it is asked for its method."""
    hidden = event.code == "function_failed" and not event.public
    text = "Processing failed" if hidden else printable(event.error, LINE_CHARS)
    level, rest = logging.INFO, f"text={text}"
    if event.report is not None:
        trace = "\n".join("    " + printable(line, LINE_CHARS) for line in event.report.traceback.splitlines())
        level, rest = logging.ERROR, f"kind={printable(event.report.type, LINE_CHARS)}\n{trace}"
    error_id = _record(event.code, pool, worker, rest, level)
    if event.code == "resource_exhausted" and event.bound is not None:
        text = _with_limit(text, policy, event.bound)
    denied.failed(policy, pool, worker, event, error_id)
    return from_code(event.code, text, error_id=error_id, path=event.path, bound=event.bound)


def unreadable(pool: str, worker: Worker, error: LocalProtocolError) -> CallError:
    """The error for a value that cannot be built on this side: an array, where there is no numpy."""
    error_id = _record(error.code, pool, worker, f"cause={printable(str(error))}")
    return from_code(error.code, str(error), error_id=error_id)


def _with_limit(text: str, policy: Policy, limit: str) -> str:
    met = limit_met(policy, limit)
    return f"{text}: {met}" if met else text


def lost(policy: Policy, pool: str, worker: Worker, death: Death, allowed: str) -> CallError:
    """The error for a call whose worker died in it. `allowed`: how long the call could take, in words."""
    if death.reason == "deadline":
        return DeadlineExceeded(f"call of {worker.method!r} was not answered within {allowed}, and its worker was killed; give it "
                                "more time")
    if death.reason == "cancelled":
        return Cancelled(f"call of {worker.method!r} was cancelled")
    error_id = _record(WorkerLost.code, pool, worker, f"reason={death.reason} evidence={death.evidence}")
    denied.lost(policy, pool, worker, death.reason, error_id)
    text = _with_limit(f"the worker died in a call of {worker.method!r}: {death.reason}", policy, ENDING.get(death.reason, ""))
    return WorkerLost(text, reason=death.reason, may_have_run=True,
                      error_id=error_id)


def _record(event: str, pool: str, worker: Worker, rest: str, level: int = logging.ERROR) -> str:
    error_id = secrets.token_hex(8)
    log.log(level, "%s error_id=%s pool=%s worker=%s method=%s %s", event, error_id, pool, worker.name, worker.method, rest)
    return error_id
