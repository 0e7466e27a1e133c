"""Many calls of one function that came in one request, and are answered together.

    request{batch: n} --> item --> item --> ... --+-- SLICE is over --> part: the results so far
                                                  +-- an item failed --> part: the results so far, part: its failure
                                                  +-- TURN is over, or something was printed --> success: the rest did not begin

An item is a call like any other: it has a deadline from its begin, an id, and its own failure. What is finished is sent after
SLICE at the latest, when an item ends, so that the next one holds nothing back that took any time. A batch gives its worker back
after TURN: others wait for it, and the items that have not begun can run elsewhere. It also ends with the item that has
printed, so that output belongs to one call.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pyproc_worker import call as calls
from pyproc_worker.call import Call
from pyproc_worker.failure import Failure, classify, refused_body, unsendable
from pyproc_worker.streams import UNFINISHED

if TYPE_CHECKING:
    from pyproc_wire.messages import LinkRequest
    from pyproc_worker.loop import Server
    from pyproc_worker.registry import Function, Registry
    from pyproc_worker.stdio import Tally

SLICE_SECONDS: Final = 0.005
"""What a part costs is a hundredth of that."""

TURN_SECONDS: Final = 0.02
"""Twice what a batch is meant to take: met when items become slower."""


class Batch:
    """One batch on its way. `server` is the port that it came over."""

    def __init__(self, server: Server, registry: Registry, function: Function, request: LinkRequest, tally: Tally) -> None:
        self._server = server
        self._registry = registry
        self._function = function
        self._request = request
        self._tally = tally
        self._results: list[Any] = []

    def run(self, bodies: list[Any]) -> Failure | None:
        """Answer items until the turn is over; why the others are not wanted any more, if that is so."""
        server, registry, function, tally = self._server, self._registry, self._function, self._tally
        check, run, send, results, clock = function.check, function.run, self._send, self._results, monotonic
        if function.wants_event:

            def run(value: Any) -> Any:
                return server.watched(function, value, call)

        add, unfinished, errors = results.append, UNFINISHED, function.public_errors
        now = clock()
        flush_at, end_at = now + SLICE_SECONDS, now + TURN_SECONDS
        calls.present = call = Call(self._request, function.timeout, server.look, now, item=0)
        for body in bodies[: self._request.batch]:
            registry.handled += 1
            try:
                value = body if check is None else check(body)
            except BaseException as error:  # noqa: BLE001 - the check of a type may be the script's own code
                send(call, refused_body(error, errors))
            else:
                try:
                    result = run(value)
                    if type(result) in unfinished:
                        result = server.finish(call, result)
                    add(result)
                except BaseException as error:  # noqa: BLE001 - whatever a function raises is the answer to its call
                    send(call, classify(error, call=call, public_errors=errors))
            call.item += 1  # type: ignore[operator]
            call.since = now = clock()
            if now >= flush_at:
                send(call, None)
                call.look()
                call.since = now = clock()
                flush_at = now + SLICE_SECONDS
                if now >= end_at:
                    break
            if tally.touched or call.cancelled:
                break
        send(call, None)
        return Failure("cancelled", "call was cancelled", public=True) if call.cancelled else None

    def _send(self, call: Call, failure: Failure | None) -> None:
        """What is finished. Where it cannot be carried as one list it is sent one by one, as each would be alone."""
        results, send = self._results, self._server.send_items
        error = send(call, results, None) if results else None
        if error is not None:
            for result in results:
                own = send(call, [result], None) if len(results) > 1 else error
                if own is not None:
                    send(call, [], unsendable(own))
        results.clear()
        if failure is not None:
            send(call, [], failure)
