"""For each layer an attack that fails with that layer alone, and works with it and what overlaps it off.

    test --> this file, run as a program, by root as an unused uid --> pools with almost every layer off --> what the attacks answered

Through the product: the same pool, plan and worker as always, under profile default, whose filter is off with the rest. What an
unprivileged user cannot have (groups) is shown by root, whose workers have a uid of their own: for that the layer capabilities,
which gives it, stays on.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from pyproc.config.options import LAYERS

pytestmark = pytest.mark.slow  # not unprivileged: what can be shown as such a user is shown as one by root too


class Show(NamedTuple):
    """`attack`; `beside`: the layers that must be on with the shown one, and stay on without it; `by_root`: see above; `where`
    the attack runs."""

    attack: str
    beside: tuple[str, ...] = ()
    by_root: bool = False
    where: str = "call"


SHOWN = {
    "user_namespace": Show("credentials.host-uid"),
    "pid_namespace": Show("processes.kill", ("user_namespace",)),
    "network_namespace": Show("sockets.tcp-connect", ("user_namespace",)),
    "ipc_namespace": Show("ipc.shared-memory", ("user_namespace",)),
    "uts_namespace": Show("namespaces.host-name", ("user_namespace",)),
    "cgroup_namespace": Show("namespaces.host-cgroup", ("user_namespace",)),
    "mount_namespace": Show("files.stat-secret", ("user_namespace",)),
    "rlimits": Show("resources.descriptors"),
    # a worker gives up the capabilities of its own namespace anyway
    "capabilities": Show("credentials.capabilities", ("user_namespace",), where="import"),
    "no_new_privs": Show("credentials.privileges-by-exec"),
    "dumpable": Show("tracing.own-child", ("user_namespace",)),
    "parent_death": Show("processes.no-parent-death"),
    "mdwe": Show("abi.writable-code"),
    "landlock": Show("files.read-secret", ("no_new_privs",)),
    "seccomp": Show("credentials.add-key", ("no_new_privs",)),
    "cgroup": Show("resources.threads", ("capabilities",), by_root=True),
}
ALWAYS = {"descriptors": "descriptors.inherited", "environment": "startup.environment"}  # `off` stops their attestation alone


def main() -> None:
    """Print layers -> attack and place -> answer for each pool that standard input asks for."""
    asked = json.load(sys.stdin)
    if os.geteuid() == 0:
        import view

        view.of_its_own()
        view.open_the_way()
        if not asked["by_root"]:
            view.become_unprivileged()
    from pyproc import Pool, PyprocError, Sandbox
    from pyproc.attack import corpus, run
    from pyproc.attack.targets import Targets

    attacks = {attack.id: attack for attack in corpus.load()}
    answers: dict[str, Any] = {}
    with Targets() as targets:
        for on, names in asked["pools"]:
            layers = {layer: "require" if layer in on else "off" for layer in LAYERS}

            def make(script: Any, env: Any, layers: Any = layers, **options: Any) -> Pool:
                return Pool(script, sandbox=Sandbox("default", layers=layers), env=dict(env), timeout=20, **options)

            chosen = [attacks[name] for name in names]
            at_import = any(show.where == "import" and show.attack in names for show in SHOWN.values())
            try:
                results = run.run_corpus(make, targets, chosen, scratch=targets.scratch, at_import=at_import)
                answers["+".join(on)] = {f"{result.id} {result.where}": result.answer for result in results}
            except PyprocError as error:
                answers["+".join(on)] = {f"{name} {where}": f"no pool: {error}" for name in names for where in ("call", "import")}
        answers["control"] = {name: run.control(targets, attacks[name]).answer for name in asked["controls"]}
    print(json.dumps(answers))


@functools.cache
def answers(*, by_root: bool) -> dict[str, dict[str, str]]:
    """Of one program that makes all the pools."""
    pools: dict[tuple[str, ...], list[str]] = {}
    for layer, show in SHOWN.items():
        if show.by_root == by_root:
            pools.setdefault((layer, *show.beside), []).append(show.attack)
            pools.setdefault(show.beside, []).append(show.attack)
    if not by_root:
        pools.setdefault((), []).extend(ALWAYS.values())
    order = {"by_root": by_root, "pools": list(pools.items()), "controls": [] if by_root else list(ALWAYS.values())}
    run = subprocess.run([sys.executable, __file__], input=json.dumps(order), capture_output=True, text=True, timeout=55, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, dict[str, str]] = json.loads(run.stdout)
    return found


def needs_root(show: Show) -> None:
    if show.by_root and os.geteuid() != 0:
        pytest.skip("needs the layer cgroup, which root has")


def test_every_layer_is_shown() -> None:
    assert set(SHOWN) | set(ALWAYS) == set(LAYERS)


@pytest.mark.parametrize("layer", SHOWN)
def test_the_layer_alone_stops_its_attack(layer: str) -> None:
    show = SHOWN[layer]
    needs_root(show)
    answer = answers(by_root=show.by_root)["+".join((layer, *show.beside))][f"{show.attack} {show.where}"]
    assert not answer.startswith(("ESCAPED", "no pool")), answer


@pytest.mark.parametrize("layer", SHOWN)
def test_without_the_layer_and_what_overlaps_it_the_attack_works(layer: str) -> None:
    show = SHOWN[layer]
    needs_root(show)
    answer = answers(by_root=show.by_root)["+".join(show.beside)][f"{show.attack} {show.where}"]
    assert answer.startswith("ESCAPED"), answer


@pytest.mark.parametrize("layer", ALWAYS)
def test_what_is_never_off_stops_its_attack_with_every_layer_off(layer: str) -> None:
    found = answers(by_root=False)
    assert found["control"][ALWAYS[layer]].startswith("ESCAPED")
    assert not found[""][f"{ALWAYS[layer]} call"].startswith(("ESCAPED", "no pool"))


if __name__ == "__main__":
    main()
