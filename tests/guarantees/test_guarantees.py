"""Every promise of GUARANTEES.md has a number and a test that exists and is collected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (G\d+) \| (.+?) \| (.+?) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[^`]+::[^`]+)`")
TEXT = (TOP / "GUARANTEES.md").read_text(encoding="utf-8")
PROMISES = {number: TEST.findall(tests) for number, _, tests in ROW.findall(TEXT)}


def test_no_number_stands_twice() -> None:
    numbers = [number for number, _, _ in ROW.findall(TEXT)]
    assert numbers and len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("number", PROMISES)
def test_a_promise_names_its_test_or_says_that_it_has_none(number: str) -> None:
    row = next(row for row in ROW.findall(TEXT) if row[0] == number)
    assert PROMISES[number] or row[2].startswith("untested:"), f"{number} names no test and does not say `untested: why`"


@pytest.mark.slow
def test_every_named_test_is_collected(request: pytest.FixtureRequest) -> None:
    named = {test for tests in PROMISES.values() for test in tests}
    files = sorted({test.partition("::")[0] for test in named})
    missing = [file for file in files if not (TOP / file).is_file()]
    assert missing == []
    here = {re.sub(r"\[.*", "", item.nodeid) for item in request.session.items}
    absent = named - here
    if absent:  # this run is of some files only
        assert absent - collected(sorted({test.partition("::")[0] for test in absent})) == set()


def collected(files: list[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files],
        cwd=TOP, capture_output=True, text=True, timeout=55, check=False,
    )
    return {re.sub(r"\[.*", "", line) for line in done.stdout.splitlines() if "::" in line}
