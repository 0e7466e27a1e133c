"""The options of a pool as values: checked when made, and what they were made of."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyproc import ConfigError, Limits, Restart, Sandbox
from pyproc.pool import options


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


def pool(script: Any = __file__, **given: Any) -> object:
    return options.read(script, **given)


@pytest.mark.parametrize(("make", "told"), [
    (lambda: Limits(foo=1), "limits.foo is unknown; options are cpu_time, cpus, file_size, memory,"),
    (lambda: Sandbox(foo=1), "sandbox.foo is unknown; options are layers, profile, read, scratch"),
    (lambda: Restart(max=1), "restart.max is unknown; options are intensity, period"),
    (lambda: pool(worker=2), "option 'worker' of the pool is unknown; options are workers,"),
    (lambda: pool(workers=2.0), "workers is 2.0; write a whole number from 1 to 1024"),
    (lambda: pool(workers="4"), "workers is '4'; write a whole number from 1 to 1024"),
    (lambda: pool(workers=None), "workers is None; write a whole number"),
    (lambda: pool(workers=True), "workers is true; write a whole number"),
    (lambda: pool(zygote=1), "zygote is 1; write true or false, in Python True or False"),
    (lambda: Limits(open_files=1.5), "limits.open_files is 1.5; write a whole number from 16 to 1048576"),
    (lambda: Limits(open_files=8), "limits.open_files is 8; write a whole number from 16 to 1048576"),
    (lambda: Limits(threads=0), "limits.threads is 0; write a whole number from 1 to 1048576"),
    (lambda: Limits(request="1 B"), "limits.request is '1 B'; write a size from 64 B to 2 GiB"),
    (lambda: pool(""), "script is ''; give the path of a Python file"),
    (lambda: pool("/nowhere/x.py"), "script '/nowhere/x.py' cannot be read: No such file or directory; give the path of a Python file"),
    (lambda: pool("/"), "script '/' cannot be read: it is no regular file; give the path of a Python file"),
    (lambda: pool("/a\0b"), "script '/a\\x00b' cannot be read: embedded null byte; give the path"),
])  # fmt: skip
def test_a_wrong_option_is_named_with_its_value_and_the_remedy(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(told)


@pytest.mark.unprivileged
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_script_that_is_closed_to_us_is_to_be_opened(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.touch(mode=0)
    with pytest.raises(ConfigError, match=f"Permission denied; let uid {os.geteuid()} read it and its folders"):
        pool(script)
