"""The log's record of what a layer or a limit refused: one line beside the failure's own, under the same error id.

    denied error_id=… pool=… worker=… method=… layer=… subject="…" change="…" reported_by="worker, untrusted"

It is for the operator: nothing of it is in what a caller gets. A script that could not be imported has no error id, and its record
names the script. The record carries the same as a map, `record.denial`, for whoever shows errors of a pool in its own process, as
`pyproc call` does, and the keys to change, `record.changes`. Runs where something has failed and never where a call went well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from pyproc.errors import ConfigError
from pyproc.sandbox.denial import Denial, death, denial
from pyproc.sandbox.rules import ProfileError
from pyproc.sandbox.verdict import Policy
from pyproc.supervisor.state import Worker
from pyproc_wire.connection import Failed
from pyproc_wire.messages import Refused

log = logging.getLogger("pyproc")


def failed(policy: Policy, pool: str, worker: Worker, event: Failed, error_id: str) -> None:
    """Of a call that failed, if what it met is a refusal or a limit of the sandbox."""
    refused = None if event.report is None else event.report.refused
    if refused is not None or event.bound is not None:
        _record(lambda: denial(policy, refused, event.bound), error_id, pool=pool, worker=worker.name, method=worker.method)


def lost(policy: Policy, pool: str, worker: Worker, reason: str, error_id: str) -> None:
    """Of a worker that died in a call, if a layer or a limit ended it."""
    _record(lambda: death(policy, reason), error_id, pool=pool, worker=worker.name, method=worker.method)


def script(policy: Policy, pool: str, refused: Refused | None) -> str:
    """Of a script that was not imported; what its error says of it, "" where no layer is the reason."""
    if refused is None:
        return ""
    found = _record(lambda: denial(policy, refused), "", pool=pool, script=policy.script)
    return "" if found is None else f"; refused by {found.layer}, as it says: {found.subject}; {found.advice}"


def _record(find: Callable[[], Denial | None], error_id: str, **where: str) -> Denial | None:
    places = " ".join(f"{name}={value}" for name, value in {**({"error_id": error_id} if error_id else {}), **where}.items())
    try:
        found = find()
    except (ConfigError, ProfileError) as error:  # the profile's file was taken away under the pool
        log.warning("unexplained %s cause=%s", places, json.dumps(str(error)))
        return None
    if found is not None:
        told = " ".join(f"{name}={json.dumps(value)}" for name, value in found.document().items())
        log.warning("denied %s %s", places, told, extra={"error_id": error_id, "denial": found.document(), "changes": found.changes})
    return found
