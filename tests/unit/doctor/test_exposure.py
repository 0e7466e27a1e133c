"""The exposure as a sum: its lines, its ends, and that switching a protection off never lowers it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyproc.config.options import LAYERS
from pyproc.doctor import exposure
from pyproc.doctor.exposure import BREADTH, LAYER_WEIGHTS, LINES
from pyproc.doctor.facts import Facts, Place, secret_variable, wide
from pyproc.sandbox import secrets
from pyproc.sandbox.plan import LayerState

EVERY_CALL = frozenset(call for calls in BREADTH.values() for call in calls)
STATES = [LayerState("enforced", "prefer"), LayerState("missing", "prefer"), LayerState("off", "off")]
CLOSED = Facts(
    pool="a", measured=True, refusal="", layers={name: LayerState("enforced", "prefer") for name in LAYERS}, profile="strict",
    allowed=frozenset({"read", "write"}), supervisor_uid=1000, worker_uid=61184, secret_variables={},
    places=(Place("/srv/models", "", (), True),), scratch=0, isolation="call", workers=2, memory=1 << 30, machine_memory=8 << 30,
    cpus=1.0, processes=1, timeout=30.0)
OPEN = replace(
    CLOSED, layers={name: LayerState("off", "off") for name in LAYERS}, allowed=EVERY_CALL, supervisor_uid=0, worker_uid=0,
    secret_variables={"TOKEN": "its name", "KEY": "its name"}, scratch=1, isolation="worker", workers=100, cpus=None, processes=9,
    timeout=3600.0)


def exposed(facts: Facts) -> float:
    return exposure.total(exposure.assess(facts))


def test_weights_add_up_to_ten_and_every_layer_has_one() -> None:
    assert sum(line.weight for line in LINES) == 1000
    assert set(LAYER_WEIGHTS) == set(LAYERS)
    assert len({line.name for line in LINES}) == len(LINES)


def test_the_ends_are_reached() -> None:
    assert exposed(CLOSED) == 0.0
    assert exposed(OPEN) == 10.0


CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"layers": {**CLOSED.layers, name: LayerState("missing", "prefer", "EPERM")}} for name in LAYERS},
    "profile_breadth": {"allowed": EVERY_CALL},
    "wide_paths": {"places": (Place("/etc", "x", (), True), Place("/var", "x", (), True))},
    "secret_paths": {"places": (Place("/srv/app", "", ("id_rsa",), True),)},
    "secret_variables": {"secret_variables": {"A": "its name", "B": "its name"}},
    "root_supervisor": {"supervisor_uid": 0},
    "isolation": {"isolation": "worker"},
    "scratch": {"scratch": 1},
    "memory": {"workers": 9},
    "worker_uid": {"worker_uid": 1000},
    "cpus": {"cpus": None},
    "processes": {"processes": 2},
    "timeout": {"timeout": 601.0},
}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_each_line_costs_its_weight_and_no_other_line(line: exposure.Line) -> None:
    rows = exposure.assess(replace(CLOSED, **CHANGES[line.name]))
    assert {row.name: row.points for row in rows if row.points} == {line.name: line.weight / 100}
    [row] = [row for row in rows if row.points]
    assert row.evidence and row.remedy and line.key.rpartition(".")[2] in row.key


@pytest.mark.parametrize(("change", "points"), [
    ({"allowed": frozenset({"socket"})}, 0.12),
    ({"secret_variables": {"A": "its name"}}, 0.20),
    ({"places": (Place("/etc", "x", (), True),)}, 0.25),
    ({"places": (Place("/srv/big", "", (), False),)}, 0.25),
    ({"isolation": "tenant"}, 0.10),
    ({"worker_uid": None}, 0.10),
])
def test_shares_are_graded(change: dict[str, Any], points: float) -> None:
    assert exposed(replace(CLOSED, **change)) == points


facts = st.builds(
    replace, st.just(CLOSED),
    layers=st.fixed_dictionaries({name: st.sampled_from(STATES)
                                  for name in LAYERS}),
    supervisor_uid=st.sampled_from([0, 1000]), worker_uid=st.sampled_from([None, 0, 1000, 61184]), scratch=st.sampled_from([0, 1]),
    secret_variables=st.dictionaries(st.sampled_from("ABC"), st.just("its name")), workers=st.integers(1, 1000),
    places=st.lists(st.builds(Place, st.just("/x"), st.sampled_from(["", "wide"]), st.sampled_from([(), ("id_rsa",)]), st.booleans()),
                    max_size=3).map(tuple),
    allowed=st.sets(st.sampled_from(sorted(EVERY_CALL))).map(frozenset), isolation=st.sampled_from(["worker", "call", "tenant"]),
    cpus=st.sampled_from([None, 1.0]), processes=st.integers(1, 3), timeout=st.sampled_from([1.0, 1e6]))


@given(facts, st.sampled_from(LAYERS))
def test_switching_a_layer_off_never_lowers_it(found: Facts, layer: str) -> None:
    """No line falls, and the whole rises by at least the layer's weight where it was in force."""
    # Without the filter every call reaches the kernel: what survey measures then.
    allowed = EVERY_CALL if layer == "seccomp" else found.allowed
    off = replace(found, layers={**found.layers, layer: LayerState("off", "off")}, allowed=allowed)
    for before, after in zip(exposure.assess(found), exposure.assess(off), strict=True):
        assert after.points >= before.points
    risen = exposed(off) - exposed(found)
    assert risen >= (LAYER_WEIGHTS[layer] / 100 if found.enforced(layer) else 0) - 1e-9
    assert 0 <= exposed(off) <= 10


@pytest.mark.parametrize(("name", "value", "found"), [
    ("API_TOKEN", "x", True), ("DB_PASSWORD", "x", True), ("aws_secret_access_key", "x", True), ("apikey", "x", True),
    ("MODEL", "/srv/models/a.bin", False), ("TOKENIZER", "bert", False), ("API_TOKEN", "", False), ("KEYBOARD", "de", False),
    ("DB", "postgres://user:pw@host/db", True), ("DB", "postgres://host/db", False), ("X", "ghp_" + "a" * 36, True),
    ("X", "-----BEGIN RSA PRIVATE KEY-----\n", True), ("AUTHOR", "x", False),
])
def test_variables_that_look_like_secrets(name: str, value: str, found: bool) -> None:
    assert bool(secret_variable(name, value)) is found


@pytest.mark.parametrize(("path", "found"), [
    ("/etc", True), ("/home", True), ("/export/people", True), ("/export/people/bob", True), ("/export/people/bob/models", False),
    ("/srv/models", False), ("/var/lib", False), ("/proc/1", True), ("/run/user/1000", True), ("/usr", True), ("/root/", True),
    ("/", True), ("/export", True), ("/procure/x", False),
])
def test_paths_that_are_wide(path: str, found: bool) -> None:
    assert bool(wide(path, {"/root", "/export/people/bob"})) is found


@pytest.mark.parametrize(("name", "found"), [
    ("id_ed25519", True), ("server.key", True), (".env", True), (".env.local", True), (".ssh", True), ("shadow", True),
    ("credentials.json", True), ("tls-key.pem", True), ("cert.pem", False), ("model.bin", False), ("keys.txt", False),
    ("id_rsa.pub", False),
])
def test_files_that_hold_secrets_as_a_rule(name: str, found: bool) -> None:
    assert secrets.named(name) is found
