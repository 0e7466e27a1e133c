"""Runs the functions that a pool's executor sends (`pyproc_wire.pickled`), in a supervised worker only.

Unpickling runs code, and that is its purpose here: the sandbox is finished, and whoever sends a function could have sent a
script. What comes out goes back as data, by the codec and the rules of every other result; nothing is pickled on this side.

pickle is imported by the first function that comes: a worker that gets none never loads it.
"""

from __future__ import annotations

from typing import Any

from pyproc_wire.pickled import EACH, PICKLE, PICKLED
from pyproc_worker.failure import PublicError
from pyproc_worker.registry import Function
from pyproc_worker.streams import UNFINISHED


def runner() -> Function:
    """What answers to PICKLED."""
    function = Function(_run, PICKLED)
    function.resolve()
    return function


def _run(body: Any) -> Any:
    fn, arguments, keywords = _load(body[PICKLE])
    if body[EACH]:
        return [_finished(fn(*each)) for each in arguments]
    return _finished(fn(*arguments, **keywords))


def _load(pickled: bytes) -> Any:
    import pickle

    try:
        return pickle.loads(pickled)  # noqa: S301 - sent by the pool's owner, loaded behind the walls
    except ModuleNotFoundError as error:
        raise PublicError(f"function cannot be loaded: no module {error.name!r} in the sandbox; install it beside the pool's "
                          "interpreter, or list the folder of the script in sandbox.read") from error


def _finished(value: Any) -> Any:
    """`value`, unless it would be run on: an executor gives what a function returns, and a generator is no data."""
    if type(value) in UNFINISHED:
        if hasattr(value, "close"):
            value.close()
        raise PublicError(f"result cannot be sent: {type(value).__name__} is no data; return a list of its items")
    return value
