"""What help() and an editor show of Pool and AsyncPool: each option of the contract with its type and default."""

from __future__ import annotations

import inspect
import pydoc
from typing import get_type_hints

import pytest

from pyproc import AsyncPool, Limits, Pool, Restart, Sandbox
from pyproc.pool import options

DEFAULTS = {  # contract, section 3, and what the reference adds
    "workers": 1, "isolation": "worker", "sandbox": None, "limits": None, "restart": None, "timeout": 30.0, "queue": 1000,
    "max_requests": 0, "env": None, "python": None, "preload": (), "concurrency": 1, "prefetch": 1, "busy_polling": None,
    "zygote": True, "name": "pool",
}


@pytest.mark.parametrize("face", [Pool, AsyncPool])
def test_the_options_are_shown_with_their_defaults(face: type) -> None:
    shown = inspect.signature(face).parameters
    assert list(shown) == ["script", *DEFAULTS]
    assert {name: shown[name].default for name in DEFAULTS} == DEFAULTS
    assert all(shown[name].kind is inspect.Parameter.KEYWORD_ONLY for name in DEFAULTS)
    assert "workers: 'int' = 1, isolation: 'str' = 'worker'" in pydoc.render_doc(face, renderer=pydoc.plaintext)


def test_what_a_type_checker_sees_is_what_is_read() -> None:
    names = {"Limits": Limits, "Restart": Restart, "Sandbox": Sandbox}
    read = get_type_hints(options._read, localns=names)
    read.pop("script"), read.pop("return")
    assert get_type_hints(options.PoolOptions, localns=names) == read
