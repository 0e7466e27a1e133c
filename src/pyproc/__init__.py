"""pyproc: run Python functions in sandboxed worker processes and call them as if they were local.

    from pyproc import Pool
    with Pool("worker.py", workers=4) as pool:
        pool.call("predict", {"value": 42})

Each name is imported when it is first used (PEP 562), so that the command line has its interrupt handling before anything large
is loaded, and a program that wants the errors only does not load a supervisor.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes milliseconds to load; an interrupt meanwhile would be a traceback
if TYPE_CHECKING:
    from types import ModuleType

    from pyproc.config.options import Limits, Restart, Sandbox
    from pyproc.errors import (
        CallError,
        Cancelled,
        ConfigError,
        DeadlineExceeded,
        FunctionFailed,
        InternalError,
        InvalidArgument,
        NotFound,
        PayloadTooLarge,
        PermissionDenied,
        ProtectionUnavailable,
        PyprocError,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        WorkerLost,
    )
    from pyproc.pool.aio import AsyncPool
    from pyproc.pool.sync import Pool

__version__ = "0.1.0"
__all__ = [
    "AsyncPool", "CallError", "Cancelled", "ConfigError", "DeadlineExceeded", "FunctionFailed", "InternalError",
    "InvalidArgument", "Limits", "NotFound", "PayloadTooLarge", "PermissionDenied", "Pool", "ProtectionUnavailable",
    "PyprocError", "ResourceExhausted", "Restart", "Sandbox", "Unauthenticated", "Unavailable", "WorkerLost",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'pyproc' has no attribute {name!r}")
    import datetime  # noqa: F401 - before msgspec, which swallows a KeyboardInterrupt in its own import of it, and crashes later

    home: ModuleType
    if name == "AsyncPool":
        from pyproc.pool import aio

        home = aio
    elif name == "Pool":
        from pyproc.pool import sync

        home = sync
    elif name in ("Limits", "Restart", "Sandbox"):
        from pyproc.config import options

        home = options
    else:
        from pyproc import errors

        home = errors
    value: object = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
