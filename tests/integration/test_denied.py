"""A refused call tells the operator which layer, what, and what would allow it, under the error id; and the caller nothing of it."""

from __future__ import annotations

import json
import logging
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pyproc import CallError, ConfigError, Limits, Pool, Sandbox

pytestmark = pytest.mark.unprivileged
WORKER = pathlib.Path(__file__).with_name("denied.py")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """A file's tests share their pools, whose workers die here."""


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[str, Pool]]:
    made: dict[str, Pool] = {}
    try:
        for name in ("strict", "default"):
            scratch = None if name == "strict" else "1 MiB"
            made[name] = Pool(WORKER, sandbox=Sandbox(name, scratch=scratch), limits=Limits(cpu_time="1 s", file_size="64 KiB"))
        yield made
    finally:
        for pool in made.values():
            pool.close()


def told(pool: Pool, caplog: pytest.LogCaptureFixture, method: str, body: Any = None) -> tuple[CallError, dict[str, str] | None]:
    """The caller's error, and what the log says was denied under its id."""
    with caplog.at_level(logging.WARNING, "pyproc"), pytest.raises(CallError) as caught:
        pool.call(method, body)
    error = caught.value
    records = [r for r in caplog.records if getattr(r, "denial", None) is not None]
    assert all(record.error_id == error.error_id for record in records) and len(records) <= 1  # type: ignore[attr-defined]
    if not records:
        return error, None
    text, denial = records[0].getMessage(), records[0].denial  # type: ignore[attr-defined]
    assert text.startswith(f"denied error_id={error.error_id} ") and f"method={method} " in text and "\n" not in text
    assert all(json.dumps(value) in text for value in denial.values())
    assert denial["change"] not in str(error) + repr(error.fields())
    return error, denial


WORKERS = "worker, untrusted"
SAID = [
    ("strict", "read", "/srv/x", "mount_namespace", "'/srv/x'", 'sandbox.read = [..., "/srv/x"], if it is there'),
    ("strict", "read", "data.txt", "mount_namespace", "a worker's folder is /", "name it in the script from / on"),
    ("strict", "read", "/etc/shadow", "mount_namespace", "'/etc/shadow'", "never proposed"),
    ("strict", "listed", "/", "landlock", "'/'", "no change"),
    ("strict", "write", "/scratch/x", "seccomp", "openat", 'sandbox.profile = "default" and sandbox.scratch = "64 MiB"'),
    ("strict", "write", "/usr/lib/x", "seccomp", "openat", "below /scratch only"),
    ("default", "write", "/usr/lib/new", "mount_namespace", "read-only", "below /scratch only"),
    ("default", "write", "/srv/x", "mount_namespace", "'/srv/x'", "to write it, no change allows it"),
    ("strict", "dial", None, "seccomp", "socket", "no change allows a network"),
    ("default", "dial", None, "landlock", "the network", "no change"),
    ("strict", "program", None, "seccomp", "forking", "no change allows it: Landlock grants workers no right to execute"),
    ("default", "program", None, "mount_namespace", "executing", "no right to execute"),
    ("strict", "threads", None, "rlimits", "limits.threads 16", "limits.threads = 32"),
    ("strict", "descriptors", None, "limits", "limits.open_files, which is 128", "limits.open_files = 256"),
    ("strict", "signals", None, "seccomp", "kill", 'sandbox.profile = "default"'),
    ("default", "signals", None, "landlock", "signal", "no change"),
    ("default", "seals", None, "seccomp", "memfd_create", "a profile of your own with memfd_create"),
    ("strict", "executable_memory", None, "mdwe", "writable and executable", "no change"),
    ("strict", "module", None, "mount_namespace", "a_module_beside_the_script", f'sandbox.read = [..., "{WORKER.parent}"]'),
    ("strict", "wrapped", None, "mount_namespace", "'/srv/wrapped'", "sandbox.read"),
    ("strict", "public", None, "mount_namespace", "'/srv/told'", "sandbox.read"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "method", "body", "layer", "subject", "change"), SAID,
                         ids=[f"{row[0]}-{row[1]}-{i}" for i, row in enumerate(SAID)])
def test_a_refusal_names_layer_subject_and_change(
    pools: dict[str, Pool], caplog: pytest.LogCaptureFixture, profile: str, method: str, body: Any, layer: str, subject: str,
    change: str,
) -> None:
    _, denial = told(pools[profile], caplog, method, body)
    assert denial is not None
    assert (denial["layer"], denial["reported_by"]) == (layer, WORKERS)
    assert subject in denial["subject"] and change in denial["change"], denial


@pytest.mark.parametrize("method", ["missing", "own_error", "database"])
def test_what_no_layer_refuses_or_a_library_hides_is_no_denial(
    pools: dict[str, Pool], caplog: pytest.LogCaptureFixture, method: str
) -> None:
    assert told(pools["strict"], caplog, method)[1] is None


def test_what_a_worker_forges_is_bounded_and_escaped(pools: dict[str, Pool], caplog: pytest.LogCaptureFixture) -> None:
    _, denial = told(pools["strict"], caplog, "forged")
    assert denial is not None and denial["reported_by"] == WORKERS
    assert all(value.isprintable() and len(value) <= 1000 for value in denial.values())


def test_an_odd_exception_is_read_by_its_built_in_fields(pools: dict[str, Pool], caplog: pytest.LogCaptureFixture) -> None:
    error, denial = told(pools["strict"], caplog, "odd")
    assert error.code == "function_failed" and denial is not None
    assert denial["layer"] == "landlock" and "'/srv/odd'" in denial["subject"]


def test_a_good_call_is_not_logged(pools: dict[str, Pool], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pyproc"):
        assert pools["strict"].call("fine") == 1
    assert not caplog.records


@pytest.mark.parametrize(("method", "layer", "change"), [
    ("spin", "limits", 'limits.cpu_time = "2 s"'), ("foreign", "seccomp", "no change allows foreign architectures"),
])  # fmt: skip
def test_a_death_is_explained_by_the_kernels_evidence(
    pools: dict[str, Pool], caplog: pytest.LogCaptureFixture, method: str, layer: str, change: str
) -> None:
    if method == "foreign" and platform.machine() != "x86_64":
        pytest.skip("x32 is an ABI of x86_64")
    _, denial = told(pools["strict"], caplog, method)
    assert denial is not None and denial["reported_by"] == "kernel"
    assert denial["layer"] == layer and change in denial["change"]


def test_a_refusal_at_import_is_in_the_error_of_the_start(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("open('/srv/model.bin')\n")
    with pytest.raises(ConfigError, match=r"refused by mount_namespace, as it says: .*'/srv/model.bin'.*sandbox.read = "):
        Pool(script)
    shown = subprocess.run([sys.executable, "-m", "pyproc", "functions", "--worker", str(script), "--json"], capture_output=True,
                           timeout=50, check=False)
    assert json.loads(shown.stdout)["error"]["denied"]["layer"] == "mount_namespace"


def test_the_command_line_shows_it_in_text_and_json() -> None:
    command = [sys.executable, "-m", "pyproc", "call", "--worker", str(WORKER), "read", '"/srv/x"']
    shown = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert shown.returncode == 1
    assert "refused by mount_namespace (reported by: worker, untrusted)" in shown.stderr
    assert 'sandbox.read = [..., "/srv/x"]' in shown.stderr
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, timeout=50, check=False).stdout)
    denied = document["error"]["denied"]
    assert set(denied) == {"layer", "subject", "change", "reported_by"} and denied["layer"] == "mount_namespace"
