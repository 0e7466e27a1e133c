"""docs/reference/doctor.md says what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pyproc.doctor.boxes import BOXES

TOP = Path(__file__).resolve().parents[3]
_spec = importlib.util.spec_from_file_location("doctor_page", TOP / "tools" / "doctor_page.py")
assert _spec is not None and _spec.loader is not None
doctor_page = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(doctor_page)


def test_reference_page_is_up_to_date() -> None:
    written = (TOP / "docs" / "reference" / "doctor.md").read_text("utf-8")
    assert written == doctor_page.page(), "run: .venv/bin/python tools/doctor_page.py --write"


def test_reference_page_says_how_each_box_is_judged() -> None:
    assert set(doctor_page.MEASURES) == {box.name for box in BOXES if not box.days}
