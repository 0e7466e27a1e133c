"""The command line as a test runs it: in this process, its exit code and what it wrote."""

from __future__ import annotations

from typing import Any

import pytest

from pyproc.cli import program


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """`cli(*words)` -> (exit code, standard output, standard error); no verb shows a traceback, whatever it is given."""
    def run(*argv: str) -> tuple[int, str, str]:
        code = program.run(argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run
