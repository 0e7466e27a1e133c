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
