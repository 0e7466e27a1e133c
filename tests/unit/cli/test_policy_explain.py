"""`pyproc policy explain` on the command line: text, JSON, a pool of several, and words that are no question."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TWO_POOLS = """
[pools.scoring]
script = "worker.py"
[pools.scoring.sandbox]
read = ["{folder}"]
[pools.parsing]
script = "worker.py"
[pools.parsing.sandbox]
profile = "default"
scratch = "1 MiB"
"""


def explain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pyproc", "policy", "explain", *arguments], capture_output=True, text=True,
                          timeout=50, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "model").write_text("x")
    (tmp_path / "worker.py").write_text("raise SystemExit('never run')")
    path = tmp_path / "pyproc.toml"
    path.write_text(TWO_POOLS.format(folder=tmp_path / "shown"))
    return path


def test_a_sentence_asks_about_one_pool_of_several(config: Path) -> None:
    model = config.parent / "shown" / "model"
    assert explain("--config", str(config), f"may scoring open {model}?").stdout.startswith("yes: ")
    told = explain("--config", str(config), f"may parsing open {model} for reading?").stdout.splitlines()
    assert told[0].startswith("no: ") and told[1] == "refused by: layer mount_namespace"
    assert told[2:] == [f'to allow it: sandbox.read = [..., "{model}"]']
    assert explain("--config", str(config), "may parsing write /scratch/x?").stdout.startswith("yes: ")
    refused = explain("--config", str(config), "may nobody fork?")
    assert refused.returncode == 2 and "the question is about pool 'nobody', and config" in refused.stderr
    assert "has scoring, parsing; name one of them" in refused.stderr


def test_json_has_the_verdict_and_the_keys() -> None:
    document = json.loads(explain("--json", "open", "/scratch/x", "--write").stdout)
    assert document == {
        "ok": True, "allowed": False, "act": "opening '/scratch/x' for writing", "profile": "strict", "why": document["why"],
        "layer": "seccomp", "errno": "EPERM", "change": 'sandbox.profile = "default" and sandbox.scratch = "64 MiB"',
        "changes": [{"key": "sandbox.profile", "value": "default", "note": ""},
                    {"key": "sandbox.scratch", "value": "64 MiB", "note": ""}]}
    assert "argument 2 & " in document["why"]  # which condition refuses it


def test_flags_are_stronger_and_a_layer_that_is_off_is_no_wall() -> None:
    assert explain("fork", "--profile", "default").stdout.startswith("yes: ")
    off = json.loads(explain("--json", "call", "ptrace", "--layer", "seccomp=off").stdout)
    assert off["allowed"] and off["layer"] is None


@pytest.mark.parametrize("words", [["open"], ["may it?"], ["open", "relative"], ["call", "no_such_call"]])
def test_what_is_no_question_is_a_usage_error(words: list[str]) -> None:
    done = explain(*words)
    assert done.returncode == 2 and not done.stdout
    assert "write" in done.stderr or "possible are" in done.stderr
