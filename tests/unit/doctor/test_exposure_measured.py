"""Each line of the exposure follows the thing that it measures: pools are really started, with and without it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyproc import Limits, Sandbox
from pyproc.config.model import PoolConfig
from pyproc.config.options import LAYERS
from pyproc.doctor import exposure, survey
from pyproc.doctor.exposure import LINES
from pyproc.doctor.facts import Facts

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]
UNPRIVILEGED = 41234
BASE: dict[str, Any] = {"isolation": "call", "sandbox": {}, "limits": {}}
Change = Callable[[Path], dict[str, Any]]


@functools.cache
def granted() -> dict[str, str]:
    return survey.granted()[0]


def measured(script: Path, changes: dict[str, Any]) -> Facts:
    """The facts of a pool that was started, or refused to."""
    given = {**BASE, **changes}
    config = PoolConfig("a", str(script), **{**given, "sandbox": Sandbox(**given["sandbox"]), "limits": Limits(**given["limits"])})
    return survey.measure(config, granted())


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doctor") / "worker.py"
    path.write_text("from pyproc_worker import expose\n@expose\ndef f(x: int) -> int:\n    return x\n")
    return path


@pytest.fixture(scope="module")
def base(script: Path) -> Facts:
    return measured(script, {})


def points(facts: Facts) -> dict[str, float]:
    return {row.name: row.points for row in exposure.assess(facts)}


def secret(folder: Path) -> dict[str, Any]:
    place = folder / "keys"
    place.mkdir()
    place.chmod(0o755)
    (place / "server.key").write_text("x")
    (place / "server.key").chmod(0o644)
    return {"sandbox": {"read": [str(place)]}}


CHANGES: dict[str, Change] = {
    "profile_breadth": lambda _: {"sandbox": {"profile": "default"}},
    "wide_paths": lambda _: {"sandbox": {"read": ["/etc"]}},
    "secret_paths": secret,
    "secret_variables": lambda _: {"env": {"API_TOKEN": "x"}},
    "isolation": lambda _: {"isolation": "worker"},
    "scratch": lambda _: {"sandbox": {"profile": "default", "scratch": "1 MiB"}},
    "memory": lambda _: {"workers": 1024, "limits": {"memory": "1024 GiB"}},
    "processes": lambda _: {"limits": {"processes": 2}},
    "timeout": lambda _: {"timeout": 3600.0},
}
ELSEWHERE = {"root_supervisor", "worker_uid", "cpus"}  # what changes them is shown by a test of its own below


def test_every_line_is_changed_by_a_test() -> None:
    assert {*LAYERS, *CHANGES, *ELSEWHERE} == {line.name for line in LINES}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_is_not_in_force_costs_its_weight(script: Path, base: Facts, layer: str) -> None:
    if granted()[layer]:
        assert not base.enforced(layer) and points(base)[layer] > 0
        pytest.skip(f"this machine does not grant the layer {layer}: it costs its weight already")
    assert base.measured and points(base)[layer] == 0
    off = measured(script, {"sandbox": {"layers": {layer: "off"}}})
    assert off.layers[layer].state == "off"
    assert points(off)[layer] == next(line.weight for line in LINES if line.name == layer) / 100
    assert all(points(off)[name] >= cost for name, cost in points(base).items())


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_measured_changes_the_number(script: Path, base: Facts, tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o755)
    changed = measured(script, CHANGES[name](tmp_path))
    assert changed.measured, changed.refusal
    assert points(changed)[name] > points(base)[name]


def test_without_the_filter_every_class_of_calls_counts(script: Path) -> None:
    assert points(measured(script, {"sandbox": {"layers": {"seccomp": "off"}}}))["profile_breadth"] == 0.7


def test_without_both_walls_every_path_counts(script: Path, base: Facts) -> None:
    off = points(measured(script, {"sandbox": {"layers": {"mount_namespace": "off", "landlock": "off"}}}))
    assert (off["wide_paths"], off["secret_paths"]) == (0.5, 0.5)
    assert (points(base)["wide_paths"], points(base)["secret_paths"]) == (0, 0)


def test_a_bound_of_processors_lowers_it_where_a_group_gives_one(script: Path, base: Facts) -> None:
    assert points(base)["cpus"] > 0
    bound = measured(script, {"limits": {"cpus": 1.0}})
    if not bound.measured:
        pytest.skip(f"no cpu group is granted here: {bound.refusal}")
    assert points(bound)["cpus"] == 0


def test_a_secret_that_workers_cannot_open_is_no_exposure(script: Path, base: Facts, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    change = secret(tmp_path)
    (tmp_path / "keys" / "server.key").chmod(0)
    assert points(measured(script, change))["secret_paths"] == 0


def test_worker_uid_is_read_from_a_worker(base: Facts) -> None:
    assert base.worker_uid is not None
    assert (points(base)["worker_uid"] > 0) is (base.worker_uid in (0, os.geteuid()))
    assert points(replace(base, worker_uid=os.geteuid()))["worker_uid"] > 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
def test_supervisor_that_is_not_root_lowers_it(script: Path, base: Facts) -> None:
    os.seteuid(UNPRIVILEGED)
    try:
        other = measured(script, {})  # as a pool made in here fares: not measured, where this uid cannot reach the interpreter
    finally:
        os.seteuid(0)
    assert points(base)["root_supervisor"] > points(other)["root_supervisor"] == 0


def test_a_pool_that_does_not_start_is_judged_by_its_plan(script: Path) -> None:
    facts = measured(script, {"sandbox": {"read": ["/nonexistent/folder"]}})
    assert not facts.measured and "does not exist" in facts.refusal and facts.worker_uid is None
    assert points(facts)["seccomp"] == (1.2 if granted()["seccomp"] else 0)


def test_limits_are_read_from_a_worker(base: Facts) -> None:
    assert (base.rlimits["RLIMIT_NOFILE"], base.rlimits["RLIMIT_CORE"]) == (128, 0)
