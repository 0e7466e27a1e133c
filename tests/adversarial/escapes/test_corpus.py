"""The corpus itself: its rows, and that every attack works where there is no sandbox."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import pytest

from pyproc import Pool, ProtectionUnavailable
from pyproc.attack import corpus, plain, run
from pyproc.attack.corpus import Attack, CorpusError
from pyproc.attack.prelude import PRELUDE
from pyproc.attack.targets import SECRET_VARIABLE, Targets
from pyproc.config.options import LAYERS

ATTACKS = corpus.load()
HERE = [attack for attack in ATTACKS if attack.fits_this_machine]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the corpus attacks a Linux kernel")


def row(**changed: object) -> dict[str, object]:
    return {"id": "files.x", "title": "t", "layers": ["seccomp"], "code": "return 1", **changed}


@pytest.fixture(scope="module")
def targets():
    with Targets() as made:
        yield made


def test_there_are_enough_distinct_attacks():
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS) >= 150
    assert len({(attack.plant, attack.code) for attack in ATTACKS}) == len(ATTACKS)
    assert len({attack.title for attack in ATTACKS}) == len(ATTACKS)
    assert len([attack for attack in ATTACKS if attack.has_control]) >= 150
    assert len({attack.kind for attack in ATTACKS}) >= 14


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_row_says_what_it_must(attack: Attack):
    assert attack.title.strip()
    assert "ESCAPED" in corpus.control_source(attack)
    assert attack.has_control or len(attack.control) > 20
    assert not (attack.namespace and not attack.has_control)


def test_every_layer_is_claimed_by_an_attack():
    assert {layer for attack in ATTACKS for layer in attack.layers} == {*LAYERS, corpus.SUPERVISOR}


def test_every_scene_is_played():
    assert {attack.scene for attack in ATTACKS} == set(corpus.SCENES)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (row(layers=["secomp"]), "secomp"),
        (row(layers=[]), "none"),
        (row(id="kernel.x"), "begins with"),
        (row(id="files."), "begins with"),
        (row(surplus=1), "surplus"),
        ({"id": "files.x"}, "lacks"),
        (row(code="return ("), "does not compile"),
        (row(machines=["vax"]), "vax"),
        (row(scene="alone again"), "alone again"),
        (row(plant="return 1"), "`plant`"),
        (row(scene="sibling"), "`plant`"),
        (row(scene="peer"), "`careless`"),
        (row(scene="peer", control="a reason", careless="return 1"), "`careless`"),
    ],
)
def test_a_bad_row_is_refused_by_name(bad: dict[str, object], named: str):
    with pytest.raises(CorpusError, match=named):
        corpus.parse(bad, "files")


def test_numbers_are_those_of_the_filter_tables():
    from pyproc.sandbox.rules import syscall_table

    for machine in corpus.MACHINES:
        table = syscall_table(machine)
        for name, number in corpus.numbers(machine).items():
            assert table[name] == number, (machine, name)


def test_every_called_number_is_there():
    import re

    for attack in ATTACKS:
        for machine in attack.machines:
            for name in re.findall(r'\bsc\("(\w+)"', attack.plant + attack.code):
                assert name in corpus.numbers(machine), (attack.id, machine, name)


def test_an_import_batch_fits_into_one_environment_string(targets: Targets):
    for first in range(0, len(ATTACKS), run.IMPORT_BATCH):
        batch = {a.id: corpus.source(a) for a in ATTACKS[first : first + run.IMPORT_BATCH]}
        assert len(json.dumps({"targets": targets.map(), "attacks": batch})) < 128 * 1024


def test_a_plain_process_is_never_root(targets: Targets):
    code = PRELUDE + "\ndef attack(T):\n    return str(os.getresuid() + os.getresgid())\n"
    uid = plain.plain_uid()
    answer = plain.answer(plain.start(code, targets.map()))
    assert uid != 0
    if os.getuid() == 0:
        assert answer == str((uid,) * 6)
    else:
        assert answer.startswith(f"({uid}, {uid}, {uid},")


@pytest.mark.parametrize("attack", [a for a in HERE if a.has_control], ids=lambda attack: attack.id)
def test_control_succeeds_without_a_sandbox(attack: Attack, targets: Targets, namespaces: str | None):
    if attack.namespace and namespaces is not None:
        pytest.skip(f"user namespaces are missing here: {namespaces}")
    result = run.control(targets, attack)
    assert result.escaped, result.answer


@pytest.fixture(scope="module")
def namespaces(targets: Targets) -> str | None:
    """None where a plain uid gets a user namespace, else what it was told."""
    code = PRELUDE + "\ndef attack(T):\n    return 'made'\n"
    answer = plain.answer(plain.start(code, targets.map(), namespace=True))
    return None if answer == "made" else answer


def test_reads_bring_back_the_secret_itself(targets: Targets):
    by_id = {attack.id: attack for attack in ATTACKS}
    for name in ("files.read-secret", "tracing.read-memory", "ipc.shared-memory", "startup.environment"):
        assert targets.token[:16] in run.control(targets, by_id[name]).answer


def test_targets_leave_nothing_behind():
    before = os.environ.get(SECRET_VARIABLE)
    with Targets() as made:
        known = made.map()
        assert Path(known["secret"]).read_text() == made.token
        os.kill(known["victim"], 0)
    assert not Path(known["host_directory"]).exists()
    assert os.environ.get(SECRET_VARIABLE) == before
    with pytest.raises(ProcessLookupError):
        os.kill(known["victim"], 0)
    segments = Path("/proc/sysvipc/shm")
    if segments.exists():
        assert str(known["shm_key"]) not in segments.read_text()


def test_this_machine_is_one_of_those_that_the_corpus_knows():
    assert platform.machine() in corpus.MACHINES


def test_a_runner_that_does_not_start_is_no_sandbox_that_holds():
    def refusing(script, env, **options):
        if env:
            raise ProtectionUnavailable("no pool comes of any import")
        return Pool(script, **options)

    with Targets() as targets, pytest.raises(ProtectionUnavailable, match="no pool comes"):
        list(run.run_corpus(refusing, targets, [attack for attack in ATTACKS if attack.scene == "alone"][:1]))
