"""Who may import whom: import-linter's contracts in pyproject.toml, run as a test and shown to bite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
pytest.importorskip("importlinter", reason="needs import-linter (requirements/test.txt)")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of pyproject.toml on the packages in folder/src."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(
        [*command, "--config", str(TOP / "pyproject.toml")], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=50, check=False,
    )


def test_the_contracts_are_kept() -> None:
    done = lint(TOP)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pyproc/errors.py", "import pyproc_worker"),
        ("pyproc_worker/registry.py", "import pyproc"),
        ("pyproc_wire/frame.py", "import socket"),
        ("pyproc/config/options.py", "import pyproc.pool"),
        ("pyproc/new_room.py", ""),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, module: str, line: str) -> None:
    shutil.copytree(TOP / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "src" / module
    changed.write_text((changed.read_text() if changed.exists() else "") + f"\n{line}\n")
    assert lint(tmp_path).returncode == 1
