"""The options of a pool as values: checked when made, and what they were made of."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from pyproc import Limits, Sandbox
from pyproc.config.options import Restart


@pytest.mark.parametrize("made", [
    Sandbox("default", read=["/srv"], scratch="1 MiB", layers={"mdwe": "off"}), Limits(memory="1 GiB", cpus=1.5, cpu_time="2 s"),
    Restart(intensity=2, period="3 s"),
])  # fmt: skip
def test_what_was_checked_cannot_be_changed_afterwards(made: Any) -> None:
    for name in made.__slots__:
        with pytest.raises(AttributeError, match=f"{name} cannot be changed"):
            setattr(made, name, None)
    if isinstance(made, Sandbox):
        with pytest.raises(TypeError):
            made.layers["seccomp"] = "off"  # type: ignore[index]
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert [getattr(again, name) for name in made.__slots__] == [getattr(made, name) for name in made.__slots__]
