"""docs/reference/doctor.md says what the code does."""

from __future__ import annotations

from pathlib import Path

import doctor_page

from pyproc.doctor.boxes import BOXES

TOP = Path(__file__).resolve().parents[3]


def test_reference_page_is_up_to_date() -> None:
    written = (TOP / "docs" / "reference" / "doctor.md").read_text("utf-8")
    assert written == doctor_page.page(), "run: .venv/bin/python tools/doctor_page.py --write"


def test_reference_page_says_how_each_box_is_judged() -> None:
    assert set(doctor_page.MEASURES) == {box.name for box in BOXES if not box.days}
