"""The benchmark runner works, and hides nothing: what is absent, fails or answers wrongly is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
pytest.importorskip("numpy")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=50, check=False)


def test_every_peer_is_measured_or_named(tmp_path: Path) -> None:
    done = run(str(BENCH / "run.py"), "--quick", "--only", "memory", "--write", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    found = result["results"]["memory"]["free"]
    assert found["pyproc"]["points"][""]["private_kib"]["median"] > 0
    assert all("points" in peer or peer["note"] in ("-", "not installed") for peer in found.values()), found
    assert {"kernel", "processor", "cores", "python", "versions", "profile", "load_before"} <= result["machine"].keys()
    assert all(name in done.stdout for name in found if found[name].get("note") != "-")


def test_a_wrong_answer_is_no_measurement(tmp_path: Path) -> None:
    for path in BENCH.rglob("*.py"):
        copy = tmp_path / path.relative_to(BENCH)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "work.py").write_text("def double(body):\n    return {'result': 0}\n\n\ndef echo(body):\n    return body\n")
    done = run(str(tmp_path / "cell.py"), "multiprocessing.Pool", "latency", "free", "0.01")
    assert "WrongAnswer" in json.loads(done.stdout)["error"]


def test_the_page_on_performance_shows_the_result_files() -> None:
    done = run(str(BENCH / "page.py"), "--check")
    assert done.returncode == 0, f"{done.stderr} run `python bench/page.py` after a change of bench/results"
