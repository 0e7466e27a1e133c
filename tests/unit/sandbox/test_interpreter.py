"""Another interpreter: one that cannot run a worker is refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyproc.errors import ConfigError
from pyproc.sandbox import interpreter


def test_an_interpreter_of_another_abi_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho \'["/x", "/x", "/x", "/x", [], "cpython-399-x86_64-linux-gnu"]\'\n')
    other.chmod(0o755)
    with pytest.raises(ConfigError, match=r"cpython-399.*same minor version"):
        interpreter.describe(str(other))


def test_what_is_no_interpreter_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "python"
    with pytest.raises(ConfigError, match="cannot be run"):
        interpreter.describe(str(other))
    other.write_text("#!/bin/sh\necho '[1]'\n")
    other.chmod(0o755)
    with pytest.raises(ConfigError, match="same minor version"):
        interpreter.describe(str(other))
