"""Inside the sandbox: what a worker script imports. Names are loaded when they are used, so that boot stays lean."""

from __future__ import annotations

from typing import Any

_PLACES = {
    "expose": "registry", "run_worker": "standalone", "PublicError": "failure", "current_call": "call",
    "check_cancelled": "call", "Cancelled": "call", "safe_open": "safe_open",
}
__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module pyproc_worker has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    value = getattr(importlib.import_module(f"pyproc_worker.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
