"""The corpus inside `default`: what this profile grants is told with its reason, everything else is stopped."""

from __future__ import annotations

import sys

import pytest

from pyproc import Pool, Sandbox
from pyproc.attack import corpus, run
from pyproc.attack.report import Report
from pyproc.attack.targets import Targets

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a sandbox needs a Linux kernel"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]
AT_IMPORT = ("processes", "sockets")  # the classes in which the profile grants something; `pyproc attack` runs all at import


def default_pool(script, env, **options):
    return Pool(script, sandbox=Sandbox("default", scratch="16 MiB"), timeout=run.CALL_SECONDS, env=dict(env), **options)


@pytest.fixture(scope="module")
def report():
    attacks = [attack for attack in corpus.load() if attack.scene != "peer"]  # to the supervisor both profiles are the same
    twice = [attack for attack in attacks if attack.kind in AT_IMPORT]
    with Targets() as targets:
        found = list(run.run_corpus(default_pool, targets, [a for a in attacks if a not in twice], at_import=False))
        found += run.run_corpus(default_pool, targets, twice)
    assert not [result for result in found if targets.token in result.answer], "the secret came out"
    return Report(attacks, found, profile="default", controls=False)


def test_default_stops_what_it_does_not_grant(report):
    assert not [(row.attack.id, row.answers) for row in report.rows if row.verdict not in ("stopped", "granted", "unfit")]


def test_what_default_grants_is_used_by_an_attack(report):
    """A reason that no attack needs is a hole that nobody looks at."""
    granted = {row.attack.id for row in report.rows if row.verdict == "granted"}
    assert granted == {attack.id for attack in corpus.load() if "default" in attack.granted}
