"""The claim "seccomp" of each attack, shown with the two filters of `strict` and nothing else.

A filter without its supervisor answers a question (NOTIFY) with ENOSYS, which is what a refusing supervisor amounts to.
The first filter refuses to load the second without him, so each attack runs twice, once under each: they would stack. A run takes
a quarter of the attacks, drawn from its seed; PYPROC_SOAK takes all.
"""

from __future__ import annotations

import os
import random
import sys

import pytest

from pyproc.attack import corpus, plain
from pyproc.attack.targets import Targets

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="seccomp is a Linux kernel's"),
    pytest.mark.slow,
]

UNDER_FILTER = r"""
unfiltered = attack

def attack(T):
    program = bytearray.fromhex(T["program"])
    for at in T["offsets"]:
        program[at : at + 4] = os.getpid().to_bytes(4, "little")
    code = ctypes.create_string_buffer(bytes(program), len(program))
    if libc.prctl(38, 1, 0, 0, 0):
        return "no_new_privs was refused"
    if libc.syscall(T["numbers"]["seccomp"], 1, 0, struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))):
        return "the filter was refused"
    return unfiltered(dict(T, plain=False))
"""

HERE = [attack for attack in corpus.load() if attack.fits_this_machine and attack.scene == "alone"]
CLAIMED = [attack for attack in HERE if "seccomp" in attack.layers]
SAMPLE = CLAIMED if "PYPROC_SOAK" in os.environ else random.Random(os.environ["PYPROC_SEED"]).sample(CLAIMED, len(CLAIMED) // 4)


@pytest.fixture(scope="module")
def targets():
    with Targets() as made:
        yield made


@pytest.fixture(scope="module")
def filters():
    derive = pytest.importorskip("pyproc.sandbox.derive")
    from pyproc.sandbox.profile import shipped

    strict = shipped("strict")
    return [(derive.zygote_filter(strict), ()), derive.worker_template(strict)]


def answers(attack, targets, filters):
    for program, offsets in filters:
        targets.renew()
        known = {**targets.map(), "program": program.hex(), "offsets": list(offsets)}
        yield plain.answer(
            plain.start(
                corpus.source(attack) + UNDER_FILTER,
                known,
                namespace=attack.namespace,
                env=targets.control_environment(),
                pass_fds=targets.left_open,
            )
        )


@pytest.mark.parametrize("attack", SAMPLE, ids=lambda attack: attack.id)
def test_strict_stops_it_without_any_other_layer(attack, targets, filters):
    given = list(answers(attack, targets, filters))
    assert "the filter was refused" not in given and "no_new_privs was refused" not in given
    assert not all(corpus.escaped(answer) for answer in given), given


@pytest.mark.parametrize("name", ["files.read-secret", "startup.environment", "resources.descriptors"])
def test_what_seccomp_does_not_claim_still_works_under_it(name, targets, filters):
    attack = next(a for a in HERE if a.id == name)
    assert all(corpus.escaped(answer) for answer in answers(attack, targets, filters))
