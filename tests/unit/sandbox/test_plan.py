"""Decisions of the plan that no other test sees."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pyproc.config.options import Limits, Sandbox
from pyproc.errors import ConfigError, ProtectionUnavailable
from pyproc.sandbox import interpreter, plan, probe


def test_processes_are_bounded_only_where_nothing_else_runs_under_the_uid() -> None:
    limits = Limits(threads=4, processes=1)
    assert plan.rlimits(limits, 2, address_space=False, own_uid=True)["NPROC"] == [26, 26]
    assert "NPROC" not in plan.rlimits(limits, 2, address_space=False, own_uid=False)


def test_the_address_space_is_bounded_where_no_group_bounds_memory() -> None:
    limits = Limits(memory="256 MiB")
    assert plan.rlimits(limits, 1, address_space=True, own_uid=True)["AS"] == [256 << 20] * 2
    beside_a_group = plan.rlimits(limits, 1, address_space=False, own_uid=True)["AS"]
    assert beside_a_group == [(256 << 20) + plan.ADDRESSES + limits.threads * plan.ADDRESSES_OF_A_THREAD] * 2


def test_processor_time_ends_softly_a_second_before_it_ends_hard() -> None:
    assert plan.rlimits(Limits(cpu_time="3 s"), 1, address_space=False, own_uid=True)["CPU"] == [3, 4]


def test_an_interpreter_in_a_closed_folder_is_refused_with_that_folder(tmp_path: Path) -> None:
    closed, library = tmp_path / "home", tmp_path / "home" / "python" / "lib"
    library.mkdir(parents=True)
    for folder in (tmp_path, closed, library.parent, library):
        folder.chmod(0o755)
    above = [str(folder) for folder in tmp_path.parents if folder.stat().st_mode & 0o001 == 0]
    closed.chmod(0o700)
    here = interpreter.describe(None)
    off, on = (plan.layers(Sandbox(layers={"mount_namespace": wanted, "landlock": "prefer"}), dict.fromkeys(probe.NEEDS, ""))
               for wanted in ("off", "prefer"))
    inside = msgspec.structs.replace(here, readable=(str(library),))
    with pytest.raises(ProtectionUnavailable, match=f"{above[-1] if above else closed} is closed") as caught:
        plan.refuse_unreachable(off, inside, 61184, ())
    assert caught.value.layer == "mount_namespace" and "61184" in str(caught.value)
    plan.refuse_unreachable(off, msgspec.structs.replace(here, readable=("/usr/lib",)), 61184, ("/usr",))
    plan.refuse_unreachable(on, inside, 61184, (str(library), "/usr"))
    with pytest.raises(ConfigError, match=f"sandbox.read names a folder .*{closed} is closed"):
        plan.refuse_unreachable(on, inside, 61184, (str(closed),))


def decided(uid: int, *off: str) -> None:
    sandbox = Sandbox(layers=dict.fromkeys(off, "off"))
    plan.refuse_unsupported(plan.layers(sandbox, dict.fromkeys(probe.NEEDS, "")), uid)


@pytest.mark.parametrize(("uid", "off", "told"), [
    (0, ["capabilities"], "capabilities = off, and it is what gives the workers of a supervisor that is root a uid of their own"),
    (0, ["no_new_privs"], "no_new_privs = off, and the kernel grants landlock and seccomp only with it; leave it on"),
    (1000, ["no_new_privs", "landlock"], "no_new_privs = off, and the kernel grants seccomp only with it"),
    (1000, ["user_namespace", "uts_namespace"], "user_namespace = off, and uid 1000 gets no other namespace without it; leave it on, "
     "switch pid_namespace and network_namespace and ipc_namespace and cgroup_namespace and mount_namespace off too"),
])  # fmt: skip
def test_a_layer_that_carries_others_is_not_switched_off_alone(uid: int, off: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decided(uid, *off)
    assert str(caught.value).startswith(f"sandbox.layers has {told}")


def test_a_layer_that_carries_nothing_here_can_be_switched_off() -> None:
    decided(0, "user_namespace")
    decided(1000, "capabilities")
    decided(1000, "capabilities", "no_new_privs")  # a process of full capabilities in its user namespace may load a filter
    decided(0, "no_new_privs", "landlock", "seccomp")
