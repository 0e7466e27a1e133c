"""What people run in a worker, run for real under the worker's filter; and that no allowed call is without need.

    missing       a workload of workloads/ fails under a profile's filter, on some CPython
    superfluous   an allowed call that no workload makes, on any CPython here, and whose rule does not say why it stays
                  ("unobserved" in the profile: the reason, and where there is one the call that can do as much)

Rules and reasons:
* Only the second filter, the worker's, is loaded: it needs no supervisor; that the first one lets through all that it does
  is shown in test_derive.py by simulation.
* The interpreters are this one and those that tools/pythons.py finds. The libraries are tried with this one: `make test`
  runs their test once more with the environment of each further one (tools/elsewhere.py), which has numpy too.
* One run shows both: the filter's ALLOW is turned into a question that is noted and answered (observe.py).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import platform
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pyproc.sandbox import profile
from pyproc.sandbox.rules import MACHINES, syscall_table

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[2]
WORKLOADS = HERE / "workloads"
OWN = ".".join(map(str, sys.version_info[:2]))
LIBRARIES = [path.stem.removeprefix("use_") for path in sorted((WORKLOADS / "libraries").glob("use_*.py"))]

pytestmark = [
    pytest.mark.timeout(180),  # a cold import of pandas and scikit-learn on two busy cores
    pytest.mark.skipif(
        platform.system() != "Linux" or platform.machine() not in MACHINES,
        reason="seccomp needs Linux on x86_64 or aarch64",
    ),
]


def module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


observe = module("observe", HERE / "observe.py")
pythons = module("pythons", TOP / "tools" / "pythons.py")


@functools.cache
def interpreters() -> dict[str, str]:
    """Minor version to executable, from 3.11 on; the one that runs the tests comes first. In one of .venvs only that one."""
    chosen = {OWN: sys.executable}
    if Path(sys.prefix).parent != TOP / ".venvs":
        for one in pythons.find():
            chosen.setdefault(".".join(map(str, one.minor)), one.path)
    return chosen


@functools.cache
def done(name: str, version: str, workload: Path) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        return observe.run(interpreters()[version], name, workload, Path(scratch), observed=not observe.why_not())


def workloads(name: str) -> list[Path]:
    return [path for folder in ("anywhere", name) for path in sorted((WORKLOADS / folder).glob("*.py"))]


CASES = [
    pytest.param(name, version, path, id=f"{name}-{version}-{path.stem}")
    for name in profile.SHIPPED
    for version in interpreters()
    for path in workloads(name)
]


@pytest.mark.parametrize(("name", "version", "workload"), CASES)
def test_standard_library_works_under_the_worker_filter(name: str, version: str, workload: Path) -> None:
    found = done(name, version, workload)
    assert (found.code, found.out) == (0, "done\n"), found.err[-3000:]


@pytest.mark.parametrize("name", profile.SHIPPED)
@pytest.mark.parametrize("library", LIBRARIES)
def test_library_works_under_the_worker_filter(name: str, library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed for Python {OWN}")
    found = done(name, OWN, WORKLOADS / "libraries" / f"use_{library}.py")
    assert (found.code, found.out) == (0, "done\n"), found.err[-3000:]


def entries(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        files("pyproc.sandbox").joinpath("profiles", f"{name}.json").read_text("ascii")
    )["syscalls"]
    return found


def observed(name: str) -> set[str]:
    """Every call that some workload made under this profile, on some interpreter."""
    if reason := observe.why_not():
        pytest.skip(reason)
    runs = [done(name, version, path) for version in interpreters() for path in workloads(name)]
    present = [library for library in LIBRARIES if importlib.util.find_spec(library)]
    runs += [done(name, OWN, WORKLOADS / "libraries" / f"use_{library}.py") for library in present]
    return set().union(*(one.calls for one in runs))


@pytest.mark.parametrize("name", profile.SHIPPED)
def test_every_allowed_call_is_made_by_a_workload_or_says_why_it_stays(name: str) -> None:
    made, here = observed(name), syscall_table(platform.machine())
    excused = {call for entry in entries(name) for call in entry.get("unobserved", {})}
    named = {call for entry in entries(name) for call in entry["names"] if call in here}
    assert sorted(named - made - excused) == [], "no workload makes these: remove them, or say in the profile why they stay"
    assert sorted(made - named) == []
    print(f"{name}: {len(named & made)} made by the workloads, {len(named - made)} not: {sorted(named - made)}")


@pytest.mark.parametrize("name", profile.SHIPPED)
def test_call_that_stays_for_the_sake_of_another_can_do_no_more_than_that_one(name: str) -> None:
    made, here = observed(name), syscall_table(platform.machine())
    named = {call: entry["action"] for entry in entries(name) for call in entry["names"]}
    for entry in entries(name):
        for call, told in entry.get("unobserved", {}).items():
            if like := told.get("like"):
                assert named.get(like) == named[call], f"{call} is like {like}, which the profile answers otherwise"
                assert like in made or like not in here, f"{call} is like {like}, which no workload makes"


def plain(name: str, text: str, scratch: Path) -> Any:
    script = scratch / "workload.py"
    script.write_text(text, encoding="utf-8")
    return observe.run(sys.executable, name, script, scratch, observed=False)


def test_abort_ends_by_its_signal_under_the_pinned_pid(tmp_path: Path) -> None:
    assert plain("strict", "import os; os.abort()", tmp_path).code == -6


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 are x86_64's other calls")
@pytest.mark.parametrize("name", profile.SHIPPED)
def test_x32_call_ends_the_process(name: str, tmp_path: Path) -> None:
    assert plain(name, f"from under import raw; raw({0x40000000 + 39})", tmp_path).code == -31


# mov eax, 20 (getpid of i386); int 0x80; ret
I386 = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex("b814000000cd80c3"))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 are x86_64's other calls")
@pytest.mark.parametrize("name", profile.SHIPPED)
def test_i386_call_ends_the_process(name: str, tmp_path: Path) -> None:
    assert plain(name, I386, tmp_path).code in (-31, -11), "SIGSYS; SIGSEGV from a kernel without 32-bit emulation"


def test_unknown_call_is_answered_as_by_an_older_kernel(tmp_path: Path) -> None:
    found = plain("strict", "from under import raw, refused; refused(raw, 1000, error='ENOSYS')", tmp_path)
    assert found.code == 0, found.err[-2000:]
