"""Within or wider: keys by a table, filters against the reading of a profile call by call, the verb as a reviewer uses it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyproc.config.options import Limits, Sandbox
from pyproc.sandbox import profile
from pyproc.sandbox.rules import ALLOW, ERRNO, KILL_PROCESS, LOG, Condition, Profile, Rule
from pyproc.sandbox.tighten import Policy, loosened

STRICT = profile.shipped("strict", machine="x86_64")
LAYERS = {"landlock": "require", "mdwe": "off"}
BASE = Policy(Sandbox("strict", read=["/srv/models"], layers=LAYERS), Limits(cpus=2.0), STRICT)
NUMBERS = {"read": 0, "write": 1, "ioctl": 16}
SEEN = (0, 1, 2, 5, 2**32, 2**32 + 5, 2**64 - 1)
Found = tuple[Condition, ...]


def of(sandbox: Sandbox = BASE.sandbox, limits: Limits = BASE.limits, rules: Profile = STRICT, isolation: str = "worker") -> Policy:
    return Policy(sandbox, limits, rules, isolation)


@pytest.mark.parametrize(("key", "wider", "narrower"), [
    ("sandbox.read", of(Sandbox(read=["/srv"], layers=LAYERS)), of(Sandbox(read=["/srv/models/a"], layers=LAYERS))),
    ("sandbox.read", of(Sandbox(read=["/srv/models-too"], layers=LAYERS)), of(Sandbox(layers=LAYERS))),
    ("sandbox.layers.landlock", of(Sandbox(layers={"landlock": "prefer", "mdwe": "off"})),
     of(Sandbox(layers={"landlock": "require", "mdwe": "require"}))),
    ("sandbox.layers.landlock", of(Sandbox(layers={"mdwe": "off"})), of(Sandbox(layers={"landlock": "require"}))),
    ("sandbox.layers.seccomp", of(Sandbox(layers={"landlock": "require", "seccomp": "prefer"})),
     of(Sandbox(layers={"landlock": "require", "seccomp": "require"}))),
    ("limits.memory", of(limits=Limits(cpus=2.0, memory="2 GiB")), of(limits=Limits(cpus=2.0, memory="512 MiB"))),
    ("limits.cpus", of(limits=Limits()), of(limits=Limits(cpus=1.5))),
    ("limits.cpu_time", of(limits=Limits(cpus=2.0, cpu_time="61 s")), of(limits=Limits(cpus=2.0, cpu_time="59 s"))),
    ("sandbox.profile", of(rules=profile.shipped("default", machine="x86_64")), of()),
])  # fmt: skip
def test_each_wider_key_is_named_and_the_narrower_is_not(key: str, wider: Policy, narrower: Policy) -> None:
    assert {found.key for found in loosened(BASE, wider)} == {key}
    assert loosened(BASE, narrower) == []


def test_every_limit_is_compared() -> None:
    for name in Limits.__slots__:
        wider = Limits(**{"cpus": 2.0, name: getattr(BASE.limits, name) + 1})
        assert [found.key for found in loosened(BASE, of(limits=wider))] == [f"limits.{name}"]


def test_scratch_and_isolation_are_compared() -> None:
    little, much = (of(Sandbox("default", scratch=size), rules=STRICT) for size in ("1 MiB", "2 MiB"))
    assert [found.key for found in loosened(little, much)] == ["sandbox.scratch"] and loosened(much, little) == []
    alone = of(isolation="call")
    assert [found.key for found in loosened(alone, of())] == ["isolation"] and loosened(of(), alone) == []


def test_strict_lies_within_default_and_each_within_itself() -> None:
    for machine in ("x86_64", "aarch64"):
        strict, default = (of(Sandbox(), rules=profile.shipped(name, machine=machine)) for name in profile.SHIPPED)
        assert loosened(default, strict) == [] == loosened(strict, strict)
        assert loosened(strict, default) != []


conditions = st.builds(
    Condition, st.integers(0, 1), st.sampled_from([f"SCMP_CMP_{op}" for op in ("EQ", "EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")]),
    st.sampled_from(SEEN), st.sampled_from((0, 1, 5)), st.sampled_from((32, 64)))
rules = st.builds(lambda name, action, found: Rule(name, NUMBERS[name], action, tuple(found)), st.sampled_from(sorted(NUMBERS)),
                  st.sampled_from((ALLOW, ALLOW, LOG, ERRNO | 1, KILL_PROCESS)), st.lists(conditions, max_size=2))
profiles = st.builds(lambda default, found: Profile("x86_64", default, tuple(found)), st.sampled_from((ERRNO | 1, ERRNO | 1, ALLOW)),
                     st.lists(rules, max_size=4))


@given(profiles, profiles, st.data())
def test_within_never_permits_what_the_base_refuses(base: Profile, other: Profile, data: st.DataObject) -> None:
    kept = tuple(data.draw(st.lists(st.sampled_from(base.rules), max_size=4))) if base.rules else ()
    for wanted in (other, Profile("x86_64", base.default, kept), Profile("x86_64", base.default, (*kept, *other.rules))):
        if loosened(of(rules=base), of(rules=wanted)):
            continue
        for name, args in itertools.product(NUMBERS, itertools.product(SEEN, repeat=2)):
            assert base.permits(name, args) or not wanted.permits(name, args), (name, args)


def masked(value: int, width: int) -> Condition:
    """Those bits are 0."""
    return Condition(0, "SCMP_CMP_MASKED_EQ", value, 0, width)


on_one = st.lists(conditions.filter(lambda c: c.index == 0), max_size=2).map(tuple)


@settings(max_examples=300)
@given(on_one, on_one, st.sampled_from((ALLOW, ERRNO | 1)), on_one)
@example((masked(2**32, 64),), (masked(2**32, 32),), ALLOW, (masked(2**32, 64),))  # an int's upper half is not looked at
@example((Condition(0, "SCMP_CMP_LT", 5, 0, 32),), (masked(2**32, 64),), ALLOW, (Condition(0, "SCMP_CMP_EQ", 1),))  # no whole value
@example((), (masked(2**32, 64),), ERRNO | 1, (Condition(0, "SCMP_CMP_GE", 5, 0, 32),))
def test_a_condition_implies_no_more_than_it_says(asked: Found, given_: Found, answer: int, before: Found) -> None:
    base = Profile("x86_64", ERRNO | 1, (Rule("ioctl", 16, answer, before), Rule("ioctl", 16, ALLOW, asked)))
    wanted = Profile("x86_64", ERRNO | 1, (Rule("ioctl", 16, ALLOW, given_),))
    if not loosened(of(rules=base), of(rules=wanted)):
        assert [value for value in SEEN if wanted.permits("ioctl", [value]) and not base.permits("ioctl", [value])] == []


def test_a_stricter_condition_is_within_and_a_wider_one_is_not() -> None:
    def ioctl(*found: Condition) -> Policy:
        return of(rules=Profile("x86_64", ERRNO | 1, (Rule("ioctl", 16, ALLOW, found),)))

    exact, below = Condition(1, "SCMP_CMP_EQ", 5), Condition(1, "SCMP_CMP_LE", 7)
    assert loosened(ioctl(below), ioctl(exact)) == [] == loosened(ioctl(below), ioctl(below, exact))
    assert [found.wanted for found in loosened(ioctl(exact), ioctl(below))] == ["strict, which allows more of ioctl"]
    assert loosened(ioctl(below), ioctl(Condition(1, "SCMP_CMP_EQ", 8))) != []


def test_the_verb_names_what_is_wider_and_exits_with_1(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('a policy runs nothing')\n")
    files = {}
    for name, memory, profile_ in (("base", "1 GiB", "strict"), ("less", "512 MiB", "strict"), ("more", "2 GiB", "default")):
        files[name] = tmp_path / f"{name}.toml"
        files[name].write_text(f'[pools.scoring]\nscript = "worker.py"\n[pools.scoring.sandbox]\nprofile = "{profile_}"\n'
                               f'[pools.scoring.limits]\nmemory = "{memory}"\n')
    base = str(files["base"])
    code, out, err = cli("policy", "compare", base, "--config", str(files["less"]))
    assert (code, err) == (0, "") and "stays within" in out
    code, out, _ = cli("policy", "compare", base, "--config", str(files["more"]), "--json")
    told = json.loads(out)
    assert code == 1 and not told["ok"] and {found["key"] for found in told["loosened"]} == {"limits.memory", "sandbox.profile"}
    code, out, _ = cli("policy", "compare", base, "--config", str(files["more"]))
    assert code == 1 and "1 GiB" in out and "2 GiB" in out


def test_a_base_is_read_as_it_is_written(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker.py").write_text("")
    base = tmp_path / "base.toml"
    base.write_text('[pools.scoring]\nscript = "worker.py"\n')
    monkeypatch.setenv("PYPROC_POOLS__SCORING__LIMITS__MEMORY", "2 GiB")
    assert cli("policy", "compare", str(base), "--config", str(base))[0] == 1


def test_a_base_that_cannot_be_used_is_refused(cli: Any, tmp_path: Path) -> None:
    code, _, err = cli("policy", "compare", str(tmp_path / "none.toml"), "--worker", "worker.py")
    assert code == 78 and "none.toml" in err
