"""What `import pyproc` offers and what it loads for that."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pyproc

LARGE = ("asyncio", "click", "concurrent", "msgspec", "pyproc.errors", "pyproc.pool", "socket", "subprocess")
ASK = "import sys; import pyproc; print(*(name for name in sys.argv[1:] if name in sys.modules))"


def test_import_loads_nothing_large() -> None:
    run = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{ASK}", *LARGE],
                         capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("name", pyproc.__all__)
def test_each_name_is_there_and_is_what_it_says(name: str) -> None:
    found = getattr(pyproc, name)
    assert found.__name__ == name
    assert getattr(pyproc, name) is found
    assert name in dir(pyproc)


def test_every_name_can_be_imported_at_once_and_no_other() -> None:
    names: dict[str, object] = {}
    exec("from pyproc import *", names)
    assert set(pyproc.__all__) <= set(names)
    with pytest.raises(AttributeError, match="module 'pyproc' has no attribute 'Poool'"):
        pyproc.Poool  # noqa: B018
    with pytest.raises(ImportError, match="Poool"):
        exec("from pyproc import Poool")
