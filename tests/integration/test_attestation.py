"""Each layer is taken away in turn, behind the plan's back; no worker may then serve.

What no supervisor can read (`attest.UNREADABLE`: Landlock, MDWE, PDEATHSIG, and dumpable of the same uid) is told by pid 1 before the
script runs; that the layer then does what it is for is shown by an attack under it alone, in test_layer_alone.py.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from pyproc import Pool, PyprocError
from pyproc.config.options import LAYERS
from pyproc.host import cgroup
from pyproc.sandbox import plan as plans
from pyproc.sandbox import probe
from pyproc.supervisor import children, keeper

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


def _with_limit(name: str, value: int) -> Strip:
    return lambda document: document["rlimits"].update({name: [value, value]})


# Layer -> what is taken away, by what name the refusal calls it. All layers of contract section 10, but for those of ELSEWHERE.
STRIPS: dict[str, tuple[Strip, str]] = {
    "network_namespace": (_without_namespace("network"), "network_namespace"),
    "ipc_namespace": (_without_namespace("ipc"), "ipc_namespace"),
    "uts_namespace": (_without_namespace("uts"), "uts_namespace"),
    "cgroup_namespace": (_without_namespace("cgroup"), "cgroup_namespace"),
    "mount_namespace": (_without_namespace("mount"), "mount_namespace"),
    "pid_namespace": (_without_namespace("pid"), "pid_namespace"),
    "rlimits": (_without_layer("rlimits"), "rlimits is not applied"),
    "rlimits, one of them": (_with_limit("NOFILE", 4096), "RLIMIT_NOFILE"),
    "capabilities": (_without_layer("capabilities"), "capabilities is not applied"),
    # the kernel refuses what comes after it, Landlock or the filter, before anything is attested
    "no_new_privs": (_without_layer("no_new_privs"), "Operation not permitted"),
    "dumpable": (_without_layer("dumpable"), "dumpable is not applied"),
    "parent_death": (_without_layer("parent_death"), "parent_death is not applied"),
    "mdwe": (_without_layer("mdwe"), "mdwe is not applied"),
    "landlock": (_without_layer("landlock"), "landlock is not applied"),
    "seccomp": (_without_layer("seccomp"), "seccomp is not applied"),
    "user_namespace of the worker": (_worker("user_namespace", False), "user_namespace is the zygote's"),
    "seccomp of the worker": (_worker("seccomp", None), "Seccomp_filters is "),
}
ELSEWHERE = {  # layer -> the test that takes it away by another way than the document of the plan
    "user_namespace": "test_a_user_namespace_that_is_not_entered_never_serves",
    "descriptors": "test_a_descriptor_too_many_never_serves",
    "environment": "test_a_variable_too_many_never_serves",
    "cgroup": "test_a_worker_outside_of_its_group_never_serves",
}


def test_every_layer_is_taken_away_by_a_test() -> None:
    assert {name.partition(" of ")[0].partition(",")[0] for name in STRIPS} | set(ELSEWHERE) == set(LAYERS)
    assert all(test in globals() for test in ELSEWHERE.values())


def _refused(monkeypatch: pytest.MonkeyPatch, strip: Strip, caplog: pytest.LogCaptureFixture) -> str:
    """With which words no worker of such a plan serves, the log's too."""
    build = plans.build

    def stripped(**given: Any) -> plans.Plan:
        made = build(**given)
        strip(made.document)
        return made

    monkeypatch.setattr(children.plans, "build", stripped)
    with pytest.raises(PyprocError) as refusal:
        Pool(SCRIPT)
    return f"{refusal.value}\n{caplog.text}"


@pytest.mark.unprivileged
@pytest.mark.parametrize("name", STRIPS)
def test_a_worker_without_an_attested_property_never_serves(name: str, monkeypatch: pytest.MonkeyPatch,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    layer = name.partition(" of ")[0].partition(",")[0]
    if probe.granted()[0].get(layer, ""):
        pytest.skip(f"needs the layer {layer}: {probe.granted()[0][layer]}")
    strip, named = STRIPS[name]
    assert named in _refused(monkeypatch, strip, caplog)


@pytest.mark.unprivileged
def test_a_user_namespace_that_is_not_entered_never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent starts it at the stage behind the door."""
    made = keeper.Keeper.__init__

    def past_the_door(self: Any, plan: Any, interpreter: Any, loop: Any, *, enters: bool) -> None:
        made(self, plan, interpreter, loop, enters=False)

    monkeypatch.setattr(keeper.Keeper, "__init__", past_the_door)
    wrong = "user_namespace is the supervisor's own" if os.geteuid() == 0 else "Operation not permitted"  # of any other namespace
    with pytest.raises(PyprocError, match=wrong):
        Pool(SCRIPT)


@pytest.mark.unprivileged
def test_a_descriptor_too_many_never_serves(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(SCRIPT, env={"AT_FORK": "descriptor:1"}) as pool:
        assert pool.status()["deaths"] == {"policy": 1}
        assert pool.status()["workers"][0]["name"] != "w1"
    assert "worker=w1 cause=descriptors" in caplog.text


@pytest.mark.unprivileged
def test_a_variable_too_many_never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = keeper.spawn.spawn

    def leaky(argv: Any, *, env: Any, **more: Any) -> Any:
        return spawn(argv, env={**env, "SECRET": "of the host"}, **more)

    monkeypatch.setattr(keeper.spawn, "spawn", leaky)
    with pytest.raises(PyprocError, match="environment differs in SECRET"):
        Pool(SCRIPT)


@pytest.mark.unprivileged
def test_a_worker_outside_of_its_group_never_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    refusal = cgroup.parents()[1]
    if refusal:
        pytest.skip(f"needs the layer cgroup: {refusal}")
    monkeypatch.setattr(cgroup.Group, "add", lambda self, pid: None)
    with pytest.raises(PyprocError):
        Pool(SCRIPT)
    assert "worker=w1 cause=control group of" in caplog.text


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
