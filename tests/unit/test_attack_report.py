"""What a run of the corpus is said to have shown, by a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyproc.attack import corpus
from pyproc.attack.report import Report
from pyproc.attack.run import Result

FORK = next(attack for attack in corpus.load() if attack.granted)
PLAIN = next(attack for attack in corpus.load() if attack.has_control and not attack.granted)
RARE = next(attack for attack in corpus.load() if not attack.has_control)


def ran(where: str, *, escaped: bool) -> Result:
    return Result(PLAIN.id, where, escaped, "an answer")


@pytest.mark.parametrize(
    ("results", "verdict", "holds"),
    [
        ([ran("call", escaped=False), ran("import", escaped=False), ran("control", escaped=True)], "stopped", True),
        ([ran("call", escaped=True), ran("import", escaped=False), ran("control", escaped=True)], "escaped", False),
        ([ran("call", escaped=False), ran("import", escaped=True), ran("control", escaped=False)], "escaped", False),
        ([ran("call", escaped=False), ran("import", escaped=False), ran("control", escaped=False)], "unproven", False),
        ([ran("call", escaped=False), ran("import", escaped=False)], "unproven", False),
        ([ran("control", escaped=True)], "unproven", False),
    ],
)
def test_each_attack_has_one_verdict(results: list[Result], verdict: str, holds: bool) -> None:
    report = Report([PLAIN], results, profile="strict")
    assert (report.rows[0].verdict, report.holds) == (verdict, holds)
    assert report.kinds == {PLAIN.kind: {verdict: 1}}


def test_a_right_of_the_profile_is_granted_under_that_profile_only() -> None:
    escape = Result(FORK.id, "call", True, "ESCAPED")
    granted = Report([FORK], [escape], profile="default").rows[0]
    assert (granted.verdict, granted.proof) == ("granted", FORK.granted["default"])
    assert Report([FORK], [escape], profile="strict").rows[0].verdict == "escaped"
    assert Report([FORK], [escape], profile="/a/file/named/default").rows[0].verdict == "escaped"


def test_without_a_control_the_reason_is_told() -> None:
    row = Report([RARE], [replace(ran("call", escaped=False), id=RARE.id)], profile="strict").rows[0]
    assert row.verdict == "stopped" and RARE.control in row.proof


def test_an_attack_for_another_machine_is_unfit() -> None:
    report = Report([replace(PLAIN, machines=("vax",))], [], profile="strict")
    assert report.rows[0].verdict == "unfit" and report.holds


def test_an_attack_whose_layers_are_all_lacking_is_open_and_says_which() -> None:
    results = [ran("call", escaped=True), ran("control", escaped=True)]
    lacking = dict.fromkeys(PLAIN.layers, "missing")
    report = Report([PLAIN], results, profile="strict", lacking=lacking)
    assert (report.rows[0].verdict, report.holds) == ("open", False)
    assert all(f"{layer} is missing" in report.rows[0].proof for layer in PLAIN.layers)
    lacking.popitem()
    assert Report([PLAIN], results, profile="strict", lacking=lacking).rows[0].verdict == "escaped"
