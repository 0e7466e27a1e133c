"""What is accepted has a check, a reason and, if its author says so, a last day."""

from __future__ import annotations

import datetime
import tomllib

import pytest

from pyproc.doctor import accepted
from pyproc.errors import ConfigError

TODAY = datetime.date(2026, 6, 1)


def read(text: str) -> accepted.Acceptance:
    return accepted.read(tomllib.loads(text).get("doctor", {}), {"one": 1, "two": 2}, TODAY)


def test_a_reason_is_found_for_its_check_and_pool() -> None:
    found = read('doctor.suppress = [{ check = "cpus", reason = "alone  here" }, { check = "backup", pool = "one", reason = "r" }]')
    assert (found.reason("cpus", "two"), found.reason("cpus"), found.reason("mdwe")) == ("alone here", "alone here", "")
    assert (found.reason("backup", "one"), found.reason("backup", "two")) == ("r", "")


@pytest.mark.parametrize("until", ['"2026-05-31"', "2026-05-31", "2026-05-31T10:00:00Z"])
def test_an_entry_counts_to_the_end_of_its_last_day(until: str) -> None:
    over = read(f'doctor.suppress = [{{ check = "cpus", reason = "r", until = {until} }}]')
    assert over.reason("cpus") == "" and [entry.check for entry in over.expired] == ["cpus"]
    assert read('doctor.suppress = [{ check = "cpus", reason = "r", until = 2026-06-01 }]').reason("cpus") == "r"


@pytest.mark.parametrize(("text", "told"), [
    ("doctor = 3", "doctor is 3; write a table"),
    ("doctor.supress = []", "doctor.supress is unknown; possible is suppress"),
    ("doctor.suppress = 3", "doctor.suppress is 3; write a list"),
    ("doctor.suppress = [3]", "doctor.suppress[0] is 3; write a table"),
    ('doctor.suppress = [{ check = "cpus" }]', "doctor.suppress[0].reason is missing; write why cpus is accepted"),
    ('doctor.suppress = [{ check = "cpus", reason = "  " }]', "reason is '  '; write why"),
    ('doctor.suppress = [{ check = "cpu", reason = "r" }]', "check is 'cpu'; possible are seccomp,"),
    ('doctor.suppress = [{ check = ["cpus"], reason = "r" }]', "check is ['cpus']"),
    ('doctor.suppress = [{ reason = "r" }]', "check is None"),
    ('doctor.suppress = [{ check = "S30", reason = "r" }]', "check is 'S30'"),
    ('doctor.suppress = [{ check = "cpus", reason = "r", pool = "three" }]', "pool is 'three'; the pools are one, two"),
    ('doctor.suppress = [{ check = "cpus", reason = "r", pool = ["one"] }]', "pool is ['one']"),
    ('doctor.suppress = [{ check = "cpus", reason = "r", pool = [] }]', "pool is []"),
    ('doctor.suppress = [{ check = "cpus", reason = "r", until = "soon" }]', "until is 'soon'; write the last day"),
    ('doctor.suppress = [{ check = "cpus", reason = "r", until = 3 }]', "until is 3"),
    ('doctor.suppress = [{ check = "cpus", reason = "r", untill = 3 }]', "doctor.suppress[0].untill is unknown"),
])
def test_a_mistake_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert told in str(caught.value)
