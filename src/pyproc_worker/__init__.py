"""Inside the sandbox: what a worker script imports. Names are loaded when they are used, so that boot stays lean."""

from __future__ import annotations

TYPE_CHECKING = False  # for type checkers it is typing's own, which takes as long to import as all else that the first stage needs
if TYPE_CHECKING:
    from typing import Any

    from pyproc_worker.arena import empty
    from pyproc_worker.beneath import safe_open
    from pyproc_worker.call import Cancelled, check_cancelled, current_call
    from pyproc_worker.failure import PublicError
    from pyproc_worker.registry import expose
    from pyproc_worker.standalone import run_worker

_PLACES = {
    "expose": "registry", "run_worker": "standalone", "PublicError": "failure", "current_call": "call",
    "check_cancelled": "call", "Cancelled": "call", "empty": "arena", "safe_open": "beneath",
}  # fmt: skip
__all__ = ["Cancelled", "PublicError", "check_cancelled", "current_call", "empty", "expose", "run_worker", "safe_open"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module pyproc_worker has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    value = getattr(importlib.import_module(f"pyproc_worker.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
