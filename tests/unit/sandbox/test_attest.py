"""The comparison of what a worker is with what it must be: each property alone makes a difference, and only that one."""

from __future__ import annotations

from typing import Any

import pytest

from pyproc.host.procfs import Status
from pyproc.sandbox.attest import KIND_OF_LAYER, Expected, differences, unconfined

OWN = {kind: f"{kind}:[1]" for kind in KIND_OF_LAYER.values()}
ZYGOTE = {kind: f"{kind}:[2]" for kind in OWN}
WORKER = {**ZYGOTE, "user": "user:[3]"}
LAYERS = frozenset({*KIND_OF_LAYER, "capabilities", "no_new_privs", "seccomp", "descriptors"})
DESCRIPTORS = {0: "/dev/null", 1: "pipe:[5]", 2: "pipe:[6]", 3: "socket:[7]"}
PLACES = {"memory": "/pyproc-1/w1", "": "/pyproc-1/w1"}
GROUPS = {"memory": "/docker/pyproc-1/w1", "": "/pyproc-1/w1", "cpu": "/"}
STATUS = Status((61184,) * 4, (61184,) * 4, frozenset(), (0,) * 5, 1, 2, 2, 1, 100, 7)
EXPECTED = Expected(LAYERS, 61184, 61184, frozenset({61184}), 2, 1, 100, DESCRIPTORS, OWN, ZYGOTE, PLACES)


def differ(*, expected: Expected = EXPECTED, status: Status = STATUS, namespaces: dict[str, str] = WORKER,
           descriptors: dict[int, str] = DESCRIPTORS, groups: dict[str, str] = GROUPS) -> list[str]:
    return differences(expected, status, namespaces, descriptors, groups)


def test_a_worker_as_it_must_be_differs_in_nothing() -> None:
    assert differ() == []


@pytest.mark.parametrize(("field", "value", "named"), [
    ("uids", (61184, 0, 61184, 61184), "uid"), ("gids", (0,) * 4, "gid"), ("groups", frozenset({0}), "groups"),
    ("capabilities", (0, 0, 0, 1, 0), "capabilities"), ("capabilities", (1, 0, 0, 0, 0), "capabilities"),
    ("no_new_privs", 0, "NoNewPrivs"), ("seccomp", 0, "Seccomp"), ("filters", 1, "Seccomp_filters"),
    ("filters", 3, "Seccomp_filters"), ("threads", 2, "threads"), ("parent", 1, "parent"),
])  # fmt: skip
def test_a_field_of_its_status_that_differs_is_named(field: str, value: Any, named: str) -> None:
    [found] = differ(status=STATUS._replace(**{field: value}))
    assert found.startswith(named)


@pytest.mark.parametrize("kind", OWN)
def test_a_namespace_of_the_supervisor_is_named(kind: str) -> None:
    found = differ(namespaces={**WORKER, kind: OWN[kind]})
    assert found and all(f"{kind}:[1]" in text for text in found)


@pytest.mark.parametrize("kind", sorted(set(OWN) - {"user"}))
def test_a_namespace_that_is_not_the_zygotes_is_named(kind: str) -> None:
    [found] = differ(namespaces={**WORKER, kind: f"{kind}:[9]"})
    assert "[9]" in found


def test_the_zygotes_user_namespace_is_not_the_workers_own() -> None:
    [found] = differ(namespaces=ZYGOTE)
    assert "must be the worker's own" in found


@pytest.mark.parametrize("descriptors", [
    {**DESCRIPTORS, 9: "/dev/null"}, {0: "/dev/null"}, {**DESCRIPTORS, 3: "socket:[8]"}])
def test_other_descriptors_are_named(descriptors: dict[int, str]) -> None:
    [found] = differ(descriptors=descriptors)
    assert found.startswith("descriptors")


@pytest.mark.parametrize("groups", [
    {**GROUPS, "memory": "/pyproc-1/z1"}, {**GROUPS, "memory": "/"}, {**GROUPS, "": "/pyproc-1/w11"}, {"memory": GROUPS["memory"]}])
def test_a_worker_outside_its_control_group_is_named(groups: dict[str, str]) -> None:
    [found] = differ(groups=groups)
    assert found.startswith("control group of")


def test_a_layer_that_is_not_in_force_is_not_asked_for() -> None:
    bare = EXPECTED._replace(layers=frozenset(), places={})
    nothing = STATUS._replace(capabilities=(1,) * 5, no_new_privs=0, seccomp=0, filters=0)
    assert differ(expected=bare, status=nothing, namespaces=OWN, descriptors={}, groups={}) == []


TOLD = frozenset({"mdwe", "landlock", "rlimits"})
DUMPABLE = frozenset({"dumpable"})
ENVIRONMENT = {"HOME": "/scratch"}


def wrong(*, layers: frozenset[str] = TOLD | DUMPABLE | {"environment"}, applied: frozenset[str] = TOLD | DUMPABLE,
          environment: dict[str, str] = ENVIRONMENT, limit: tuple[int, int] = (9, 9), hidden: bool | None = True) -> list[str]:
    limits = ({"RLIMIT_CORE": limit}, {"CORE": [9, 9]})
    return unconfined(layers, applied, environment=(environment, ENVIRONMENT), limits=limits, hidden=hidden)


def test_what_is_confined_as_planned_differs_in_nothing() -> None:
    assert wrong() == wrong(limit=(3, 4)) == wrong(hidden=None) == []


@pytest.mark.parametrize(("given", "named"), [
    ({"applied": TOLD - {"mdwe"} | DUMPABLE}, "mdwe is not applied"),
    ({"applied": TOLD | DUMPABLE | {"seccomp"}}, "seccomp is applied"),
    ({"environment": {"HOME": "/root"}}, "HOME"), ({"environment": {**ENVIRONMENT, "KEY": "x"}}, "KEY"), ({"environment": {}}, "HOME"),
    ({"limit": (9, 10)}, "RLIMIT_CORE"), ({"limit": (-1, -1)}, "RLIMIT_CORE"), ({"hidden": False}, "dumpable"),
])  # fmt: skip
def test_each_difference_before_the_import_is_named(given: dict[str, Any], named: str) -> None:
    [found] = wrong(**given)
    assert named in found


def test_a_layer_that_is_not_in_force_is_not_looked_at() -> None:
    off = {"layers": frozenset({"mdwe"}), "applied": frozenset({"mdwe"})}
    assert wrong(**off, environment={}, limit=(-1, -1), hidden=False) == []  # type: ignore[arg-type]
