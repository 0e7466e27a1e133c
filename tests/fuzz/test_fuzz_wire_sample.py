"""A sample of the fuzz harness in each run of the suite: a fixed seed, so that a failure is the change's."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_mutated_vectors_parse_or_are_refused() -> None:
    harness = runpy.run_path(str(Path(__file__).with_name("fuzz_wire.py")))
    harness["run"](3_000, 7)
