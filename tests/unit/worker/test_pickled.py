"""The runner of sent functions: where it answers, and what it gives back."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from pyproc_wire.pickled import PICKLED
from pyproc_worker.failure import PublicError
from pyproc_worker.pickled import runner
from pyproc_worker.registry import Registry


def run(fn: Any, *arguments: Any, each: bool = False, **keywords: Any) -> Any:
    function = runner()
    assert function.check is None
    return function.run({"pickle": pickle.dumps((fn, arguments[0] if each else arguments, keywords)), "each": each})


def generate() -> Any:
    yield 1


async def later() -> None:
    await asyncio.sleep(0)


def test_a_function_is_called_or_called_for_each() -> None:
    assert run(divmod, 7, 2) == (3, 1)
    assert run(int, "11", base=2) == 3
    assert run(divmod, [(7, 2), (9, 4)], each=True) == [(3, 1), (2, 1)]


@pytest.mark.parametrize("fn", [generate, later])
def test_what_would_be_run_on_is_no_value(fn: Any) -> None:
    with pytest.raises(PublicError, match="is no data"):
        run(fn)
    with pytest.raises(PublicError, match="is no data"):
        run(fn, [()], each=True)


def test_a_module_that_is_missing_is_named() -> None:
    with pytest.raises(PublicError, match="no module 'no_such_module'"):
        runner().run({"pickle": b"cno_such_module\nf\n.", "each": False})


def test_no_script_exposes_it_and_no_registry_has_it_by_itself() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="cannot be exposed"):
        registry.add(len, name=PICKLED)
    registry.freeze()
    assert registry.lookup(PICKLED) is None  # a worker that is run alone stops here
    registry.answer_unlisted(runner())
    found = registry.lookup(PICKLED)
    assert found is not None and found.name == PICKLED
    assert PICKLED not in registry.describe()
    assert registry.lookup("health") is not None
