"""What a worker's answer may say: which fields stand together, which codes and texts are a worker's.

The peer is hostile: whatever is not permitted here is a breach. Texts come out with their control characters
escaped, so that what a worker says can be shown and logged.
"""

from __future__ import annotations

from typing import Any

from pyproc_wire.codes import WORKER_BOUNDS, WORKER_CODES
from pyproc_wire.connection_state import FAILURE, PART, READY, SUCCESS
from pyproc_wire.errors import RemoteProtocolError, printable, without_controls
from pyproc_wire.events import Failed
from pyproc_wire.limits import ASKED_CHARS, PATH_CHARS, PUBLIC_TEXT_BYTES, REFUSED_PATH_BYTES, REPORT_BYTES, TYPE_NAME_CHARS
from pyproc_wire.messages import MISSING, Answer, ReadyNote, Refused


def ready_note(value: Any) -> ReadyNote:
    """`value` as what a worker says when it is ready. Raises TypeError."""
    if type(value) is not dict or value.keys() != {"functions"}:
        raise TypeError("it holds functions and nothing else")
    functions = value["functions"]
    if type(functions) is not dict or any(type(key) is not str for key in functions):
        raise TypeError("functions is a map from text")
    return ReadyNote(functions)


def kind_of(answer: Answer) -> str:
    """Which message the fields make up: each has fields of its own and none of another's. Raises
    RemoteProtocolError for a combination that is none."""
    if answer.ok is True:
        if answer.body is not MISSING and answer.part is answer.ready is MISSING and not _says_failure(answer):
            return SUCCESS
    elif answer.ok is False:
        if answer.error is not None and answer.code is not None and not (answer.body or answer.part or answer.ready):
            return FAILURE
    elif not (answer.body or answer.output or _says_failure(answer)):
        if answer.part and not answer.ready:
            return PART
        if answer.ready and not answer.part and answer.id is None:
            return READY
    raise RemoteProtocolError("answer has fields that do not belong together", id=answer.id)


def _says_failure(answer: Answer) -> bool:
    if answer.error is None and answer.code is None and answer.path is None and answer.bound is None:
        return answer.report is not None or answer.public
    return True


def failed(id: int, answer: Answer) -> Failed:
    """The event of a failure whose texts, code and bound are within what a worker may say."""
    error, code, path, bound, report = answer.error, answer.code, answer.path, answer.bound, answer.report
    if error is None or code not in WORKER_CODES:
        raise RemoteProtocolError(f"code {printable(str(code))!r} is not one that a worker may answer", id=id)
    if bound is not None and bound not in WORKER_BOUNDS:
        raise RemoteProtocolError(f"bound {printable(bound)!r} is not one that a worker can meet", id=id)
    if len(error.encode()) > PUBLIC_TEXT_BYTES:
        raise RemoteProtocolError(f"error text is longer than {PUBLIC_TEXT_BYTES} bytes", id=id)
    if path is not None and len(path) > PATH_CHARS:
        raise RemoteProtocolError(f"path is longer than {PATH_CHARS} characters", id=id)
    if report is not None and (len(report.traceback.encode()) > REPORT_BYTES or len(report.type) > TYPE_NAME_CHARS):
        raise RemoteProtocolError(f"report is longer than {REPORT_BYTES} bytes", id=id)
    if report is not None and report.refused is not None:
        _require_bounded(id, report.refused)
    shown = without_controls(error)[:PUBLIC_TEXT_BYTES]
    return Failed(id, code, shown, path and without_controls(path), bound, answer.public, report, answer.output)


def _require_bounded(id: int, refused: Refused) -> None:
    if refused.path is not None and len(refused.path.encode()) > REFUSED_PATH_BYTES:
        raise RemoteProtocolError(f"refused path is longer than {REFUSED_PATH_BYTES} bytes", id=id)
    if refused.asked is not None and not (refused.asked.isidentifier() and len(refused.asked) <= ASKED_CHARS):
        raise RemoteProtocolError(f"callable {printable(refused.asked)!r} is no name of at most {ASKED_CHARS} characters", id=id)
