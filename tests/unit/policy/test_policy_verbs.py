"""`pyproc policy show` and `export` as a person or a script meets them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pyproc.cli.commands.policy.export import FORMATS
from pyproc.policy import calls
from pyproc.sandbox import derive, profile
from pyproc.sandbox.rules import Condition, Profile, Rule


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "worker.py").write_text("raise SystemExit('a policy runs nothing')\n")
    (tmp_path / "data set").mkdir()
    (tmp_path / "pyproc.toml").write_text(f"""
[pools.scoring]
script = "worker.py"
env = {{ TOKEN = "hidden value" }}
[pools.scoring.sandbox]
profile = "default"
scratch = "2 MiB"
read = ["{tmp_path}/data set"]
[pools.scoring.limits]
memory = "512 MiB"
""")
    return str(tmp_path / "pyproc.toml")


def test_show_tells_paths_limits_and_calls_with_their_reasons(cli: Any, config: str) -> None:
    code, out, err = cli("policy", "show", "--config", config)
    assert (code, err) == (0, "")
    for told in ("pool scoring", "profile default", "data set (listed)", "/scratch, 2 MiB", "memory         512 MiB", "TOKEN",
                 "munmap, mremap, mprotect, brk", "memory of its own", "where argument 3 & 0x40000 is 0"):
        assert told in out, told
    assert "hidden value" not in out


def test_the_document_has_the_hash_of_the_filter_and_every_rule(cli: Any, config: str) -> None:
    code, out, _ = cli("policy", "show", "--config", config, "--json")
    told = json.loads(out)
    template, _ = derive.worker_template(profile.shipped("default"))
    assert code == 0 and told["ok"] and told["filter_sha256"] == hashlib.sha256(template).hexdigest()
    assert told["limits"]["memory"] == 512 << 20 and told["paths"]["scratch"] == {"path": "/scratch", "bytes": 2 << 20, "files": 1000}
    named = {name for group in told["calls"] for name in group["names"]}
    assert named == {rule.name for rule in derive.worker_rules(profile.shipped("default")).rules}
    assert all(group["reason"] for group in told["calls"] if group["answer"] == "allow")
    assert "hidden value" not in out


def test_a_layer_that_is_off_is_shown_as_off(cli: Any) -> None:
    assert "system calls: all, as layer seccomp is off" in cli("policy", "show", "--layer", "seccomp=off")[1]


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_written_and_wrapped(cli: Any, config: str, format: str) -> None:
    code, out, err = cli("policy", "export", "--format", format, "--config", config)
    assert (code, err) == (0, "") and "profile default" in out
    told = json.loads(cli("policy", "export", "--format", format, "--config", config, "--json")[1])
    assert told["ok"] and told["format"] == format and told["text"].removesuffix("\n") == out.removesuffix("\n")


@pytest.mark.parametrize(("argv", "told"), [
    (("--format", "oci", "--part", "unit"), "oci has no parts"),
    (("--format", "systemd", "--part", "pod"), "unit, sysusers, tmpfiles"),
    (("--format", "oci", "--start", "x"), "belong to --format systemd"),
    (("--format", "systemd", "--start", "'"), "quote it as for a shell"),
    (("--format", "systemd", "--start", ""), "is empty"),
    ((), "--format"),
])
def test_misuse_is_a_usage_error(cli: Any, argv: tuple[str, ...], told: str) -> None:
    code, out, err = cli("policy", "export", *argv)
    assert (code, out) == (2, "") and told in err


def test_a_value_that_a_format_cannot_carry_is_refused(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "worker.py").write_text("")
    (tmp_path / "c.toml").write_text(f'[pools.p]\nscript = "worker.py"\n[pools.p.sandbox]\nread = ["{tmp_path}/a\\nb"]\n')
    code, _, err = cli("policy", "export", "--format", "docker", "--config", str(tmp_path / "c.toml"))
    assert code == 78 and "it holds" in err and "rename the file" in err


def test_rules_that_no_call_reaches_are_not_shown() -> None:
    first = Rule("read", 0, 0x7FFF0000, (), "a")
    found = calls.grouped(Profile("x86_64", 0x50001, (first, Rule("read", 0, 0x50001, (Condition(0, "SCMP_CMP_EQ", 1),), "b"))))
    assert [(group.answer, group.reason) for group in found] == [("allow", "a")]
