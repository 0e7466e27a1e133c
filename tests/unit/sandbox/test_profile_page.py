"""docs/reference/profiles.md says what the profiles say."""

from __future__ import annotations

from pathlib import Path

import profile_page
import pytest

from pyproc.sandbox import profile
from pyproc.sandbox.rules import MACHINES

TOP = Path(__file__).resolve().parents[3]


def test_reference_page_is_up_to_date() -> None:
    written = (TOP / "docs" / "reference" / "profiles.md").read_text("utf-8")
    assert written == profile_page.page(), "run: .venv/bin/python tools/profile_page.py --write"


@pytest.mark.parametrize("name", profile.SHIPPED)
def test_reference_page_names_every_call_with_its_reason(name: str) -> None:
    text = profile_page.page()
    rows = {line.split("|")[1].strip(" `"): line for line in text.partition("## Calls that no")[0].splitlines() if line[:3] == "| `"}
    for machine in MACHINES:
        for rule in profile.shipped(name, machine=machine).rules:
            assert rule.reason in rows[rule.name]
