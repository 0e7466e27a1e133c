"""Each property that is attested is taken away in turn, behind the plan's back; no worker may then serve."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from pyproc import Pool, PyprocError
from pyproc.sandbox import plan as plans
from pyproc.supervisor import children

SCRIPT = pathlib.Path(__file__).with_name("subject.py")
Strip = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """A refused pool takes its trees down by itself; test_pool counts what is left."""


def _without_namespace(kind: str) -> Strip:
    return lambda document: document["namespaces"].remove(kind)


def _without_layer(name: str) -> Strip:
    return lambda document: document["layers"].remove(name)


def _worker(key: str, value: Any) -> Strip:
    return lambda document: document["worker"].update({key: value})


STRIPS: dict[str, Strip] = {
    "network_namespace": _without_namespace("network"),
    "ipc_namespace": _without_namespace("ipc"),
    "uts_namespace": _without_namespace("uts"),
    "cgroup_namespace": _without_namespace("cgroup"),
    "mount_namespace": _without_namespace("mount"),
    "pid_namespace": _without_namespace("pid"),
    "capabilities of the zygote": _without_layer("capabilities"),
    "seccomp of the zygote": _without_layer("seccomp"),
    "user namespace and capabilities of the worker": _worker("user_namespace", False),
    "second filter of the worker": _worker("seccomp", None),
    "no_new_privs": _without_layer("no_new_privs"),
}


@pytest.mark.unprivileged
@pytest.mark.parametrize("name", STRIPS)
def test_a_worker_without_an_attested_property_never_serves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = plans.build

    def stripped(**given: Any) -> plans.Plan:
        made = build(**given)
        STRIPS[name](made.document)
        return made

    monkeypatch.setattr(children.plans, "build", stripped)
    with pytest.raises(PyprocError):
        Pool(SCRIPT)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only then does a worker change its uid")
def test_a_worker_that_kept_roots_uid_never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    build = plans.build

    def stripped(**given: Any) -> plans.Plan:
        made = build(**given)
        made.document["become"] = None
        return made

    monkeypatch.setattr(children.plans, "build", stripped)
    with pytest.raises(PyprocError, match="uid"):
        Pool(SCRIPT)


def test_the_unstripped_plan_serves() -> None:
    with Pool(SCRIPT) as pool:
        assert pool.call("echo", 1) == 1
