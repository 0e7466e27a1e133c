"""An error id leads to exactly one record of the log; at level ERROR where something is kept from the caller."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from pyproc import AsyncPool, CallError, Limits, Pool
from pyproc_wire.codec import MESSAGEPACK

SCRIPT = pathlib.Path(__file__).with_name("subject.py")
ARRAY = msgspec.Raw(MESSAGEPACK.encode_value(np.arange(3.0)))
CALLS: list[tuple[str, Any, str, bool]] = [  # method, body, code, whether something is kept from the caller
    ("hide_secret", "hunter2", "function_failed", True),
    ("public", "try again", "function_failed", False),
    ("area", {"width": "3"}, "invalid_argument", False),
    ("nope", None, "not_found", False),
    ("numbers", 2000, "payload_too_large", False),
    ("impatient", None, "deadline_exceeded", False),
    ("die_by", 3, "worker_lost", True),
    ("echo", ARRAY, "internal", True),
]


@pytest.mark.parametrize("face", ["call", "stream", "asyncio"])
def test_each_error_id_has_one_record(face: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(SCRIPT, limits=Limits(response="1 KiB"))
    other = AsyncPool(SCRIPT)
    other._started = pool._core
    monkeypatch.setitem(sys.modules, "numpy", None)
    use: dict[str, Callable[[str, Any], Any]] = {
        "call": pool.call, "stream": lambda *call: list(pool.stream(*call)),
        "asyncio": lambda *call: asyncio.run(other.call(*call)),
    }
    with pool, caplog.at_level(logging.DEBUG, "pyproc"):
        for method, body, code, kept in CALLS:
            if (face, method) == ("stream", "numbers"):
                continue
            with pytest.raises(CallError) as caught:
                use[face](method, body)
            error = caught.value
            assert error.code == code
            assert (error.error_id is not None) == (code not in ("not_found", "deadline_exceeded")), method
            told = [record for record in caplog.records if error.error_id and f"error_id={error.error_id}" in record.getMessage()]
            levels = [record.levelno for record in told if not record.getMessage().startswith("denied ")]  # stands beside it
            assert levels == ([logging.ERROR if kept else logging.INFO] if error.error_id else []), method
