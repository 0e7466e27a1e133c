"""The whole corpus inside `strict`, by calls and at import, through the public interface alone."""

from __future__ import annotations

import sys

import pytest

import pyproc
from pyproc.attack import corpus, run
from pyproc.attack.targets import Targets

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a sandbox needs a Linux kernel"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def strict_pool(script, env, **options):
    return pyproc.Pool(script, sandbox=pyproc.Sandbox("strict"), timeout=run.CALL_SECONDS, env=dict(env), **options)


@pytest.fixture(scope="module")
def results():
    with Targets() as targets:
        found = list(run.run_corpus(strict_pool, targets))
        assert not [r for r in found if targets.token in r.answer], "the secret came out"
        return {(result.id, result.where): result for result in found}


@pytest.mark.parametrize("where", ["call", "import"])
@pytest.mark.parametrize("attack", [a for a in corpus.load() if a.fits_this_machine], ids=lambda attack: attack.id)
def test_strict_stops(attack, where, results):
    if where == "import" and attack.scene != "alone":
        assert (attack.id, where) not in results
        return
    result = results[attack.id, where]
    assert result.escaped == ("strict" in attack.granted), f"{attack.title}: {result.answer}"


def test_a_call_that_is_no_attack_is_answered(results):
    with Targets() as targets, strict_pool_of_one() as pool:
        body = {"id": "none", "code": "def attack(T): return 'ran'", "targets": targets.map()}
        assert pool.call("run", body) == "ran"


def strict_pool_of_one():
    from importlib.resources import files

    return strict_pool(files("pyproc.attack") / "runner_worker.py", {})
