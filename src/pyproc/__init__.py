"""pyproc: run Python functions in sandboxed worker processes and call them as if they were local.

    from pyproc import Pool
    with Pool("worker.py", workers=4) as pool:
        pool.call("predict", {"value": 42})
"""

from __future__ import annotations

import datetime  # noqa: F401 - before msgspec, which swallows a KeyboardInterrupt in its own import of it, and crashes later

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
