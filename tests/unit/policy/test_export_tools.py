"""Each format is read by the program that it is for; a missing program is a skip that names it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from policy_subjects import having, policy, reading, run

from pyproc.policy import apparmor, docker, head, kubernetes, oci, selinux, service, systemd, text
from pyproc.sandbox import oci as reader
from pyproc.sandbox import profile

BASE = Path(__file__).with_name("base.cil")
PROFILES = ("strict", "default")
AWKWARD = "/srv/a b/c%n $HOME,*?[x]{y}^@z/é:'(d).+|\\"


@pytest.mark.parametrize("name", PROFILES)
def test_apparmor_compiles(name: str, tmp_path: Path) -> None:
    (tmp_path / "profile").write_text(apparmor.render(policy(name)))
    done = run("apparmor_parser", "-Q", "-K", "profile", package="Debian's apparmor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_apparmor_has_no_bare_denial_of_network() -> None:
    assert not re.search(r"deny network *,", apparmor.render(policy()))


@pytest.mark.parametrize("name", PROFILES)
def test_selinux_compiles(name: str, tmp_path: Path) -> None:
    (tmp_path / "pyproc.cil").write_text(selinux.render(policy(name)))
    done = run("secilc", "-o", "policy", "-f", "contexts", str(BASE), "pyproc.cil", package="Debian's secilc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROFILES)
def test_the_unit_is_exposed_at_most_1_5(name: str, tmp_path: Path) -> None:
    (tmp_path / "pyproc.service").write_text(systemd.render(policy(name)))
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", "./pyproc.service",
               package="Debian's systemd", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert "ignoring" not in done.stderr


def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    (tmp_path / "pyproc.service").write_text(systemd.render(policy(), start=(policy().program, "a b", "c%d$e")))
    done = run("systemd-analyze", "verify", "./pyproc.service", package="Debian's systemd", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_accounts_and_directories_are_taken(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "users.conf").write_text(systemd.sysusers(policy()))
    done = run("systemd-sysusers", f"--root={root}", str(tmp_path / "users.conf"), package="Debian's systemd")
    assert done.returncode == 0, done.stderr
    assert (root / "etc" / "passwd").read_text().startswith("pyproc:")
    (tmp_path / "directories.conf").write_text(systemd.tmpfiles(policy()))
    done = run("systemd-tmpfiles", "--create", f"--root={root}", str(tmp_path / "directories.conf"), package="Debian's systemd")
    assert not [line for line in done.stderr.splitlines() if "conf:" in line], done.stderr


@pytest.mark.parametrize("name", PROFILES)
def test_kubernetes_takes_the_pod(name: str, tmp_path: Path) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    (tmp_path / "pod.yaml").write_text(kubernetes.render(policy(name)))
    done = subprocess.run([sys.executable, "-m", "kubernetes_validate", "--strict", "pod.yaml"], capture_output=True, text=True,
                          timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 0 and "passed" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("name", PROFILES)
def test_oci_decides_as_the_profile_and_its_head_allows_nothing(name: str) -> None:
    written, own = reader.parse(oci.render(policy(name))), profile.shipped(name)
    for call in {rule.name for rule in own.rules} | {"ptrace", "bpf"}:
        for args in ((), (1, 2, 3), (0x10000, 0x40000, 5, 0x40000)):
            assert written.decide(call, args) == own.decide(call, args), (call, args)


def test_the_filter_around_a_service_allows_its_names_and_nothing_else() -> None:
    around = reader.parse(kubernetes.seccomp(policy()))
    assert {rule.name for rule in around.rules} <= set(service.names(policy().source))
    assert not around.permits("ptrace") and not around.permits("setns") and around.permits("unshare", (1,))
    assert all(need["reason"] for need in service.needs())


RENDERINGS = {"oci": oci.render, "apparmor": apparmor.render, "selinux": selinux.render, "systemd": systemd.render,
              "kubernetes": kubernetes.render, "seccomp": kubernetes.seccomp, "docker": docker.render, "text": text.export}


@pytest.mark.parametrize("name", RENDERINGS)
def test_each_says_what_it_was_made_of_and_shows_no_value_of_the_environment(name: str) -> None:
    made = RENDERINGS[name](policy())
    assert policy().version in made and policy().filter_sha256 in made and "profile strict" in made
    assert name == "text" or head.NOT_ENFORCED in made
    assert "hidden value" not in made


@pytest.mark.parametrize("name", sorted(RENDERINGS.keys() - {"text"}))
def test_a_line_feed_in_a_name_stays_within_its_comment(name: str) -> None:
    assert "\nUser=root" not in RENDERINGS[name](having(pool="a\nUser=root\n", profile="b\nUser=root\n"))


def test_the_apparmor_compiler_reads_an_awkward_path_as_one_name(tmp_path: Path) -> None:
    path = AWKWARD.rstrip("\\")
    (tmp_path / "profile").write_text(apparmor.render(reading(path)))
    done = run("apparmor_parser", "-Q", "-K", "-d", "profile", package="Debian's apparmor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = [name for name in re.findall(r"Name:\t\((.*)\)", done.stdout) if name.startswith("/srv")]
    assert kept and {re.sub(r"\\(.)", r"\1", name).removesuffix("**").rstrip("/") for name in kept} == {path}


def test_the_selinux_compiler_reads_an_awkward_path_as_one_pattern(tmp_path: Path) -> None:
    (tmp_path / "pyproc.cil").write_text(selinux.render(reading(AWKWARD)))
    done = run("secilc", "-o", "policy", "-f", "contexts", str(BASE), "pyproc.cil", package="Debian's secilc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [line] = [one for one in (tmp_path / "contexts").read_text().splitlines() if "readable_t" in one]
    pattern, context = line.split()
    assert re.fullmatch(pattern, AWKWARD) and re.fullmatch(pattern, AWKWARD + "/x") and not re.fullmatch(pattern, AWKWARD[:-1])
    assert context == "system_u:object_r:pyproc.readable_t:s0"


def test_json_of_a_filter_is_json() -> None:
    for made in (oci.render(policy()), kubernetes.seccomp(policy())):
        assert json.loads(made)["defaultAction"] == "SCMP_ACT_ERRNO"
