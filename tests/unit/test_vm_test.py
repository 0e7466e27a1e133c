"""`make vm-test` itself needs a machine; here is what it does before and after."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import vm_image
import vm_test


def test_a_missing_program_is_one_line_with_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["vm_test.py"])
    assert vm_test.main() == 1
    remedy = "apt-get install --no-install-recommends qemu-system-x86"
    assert capsys.readouterr().err == f"pyproc: vm-test needs qemu-system-x86_64: {remedy}\n"


def test_one_failed_check_fails_the_run_and_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"kernel": "6.1", "machine": "x86_64", "systemd": "252", "python": "3.11",
              "checks": {"good": [True, "g" * 500, 1], "bad": [False, "b" * 500, 2]}}
    assert not vm_test.judge(report)
    shown = capsys.readouterr().out
    assert "FAILED  bad" in shown and "b" * 500 in shown and "g" * 500 not in shown and "1 of 2 checks passed" in shown
    del report["checks"]["bad"]  # type: ignore[attr-defined]
    assert vm_test.judge(report)


def test_an_archive_has_each_folder_once_before_what_is_in_it() -> None:
    file = io.BytesIO()
    cpio = vm_image.Cpio(file)
    cpio.add("a/b/c", 0o100644, b"12345", uid=7)
    cpio.add("a/b", 0o040755)
    cpio.add("a/d", 0o120777, b"b/c")
    cpio.end()
    found, place, archive = [], 0, file.getvalue()
    while place < len(archive):
        magic, numbers = archive[place:place + 6], [int(archive[n:n + 8], 16) for n in range(place + 6, place + 110, 8)]
        assert magic == b"070701"
        size, length = numbers[6], numbers[11]
        name = archive[place + 110:place + 110 + length - 1].decode()
        content = place + 110 + length + -(110 + length) % 4
        found.append((name, oct(numbers[1]), numbers[2], archive[content:content + size]))
        place = content + size + -size % 4
    assert found == [("a", "0o40755", 0, b""), ("a/b", "0o40755", 0, b""), ("a/b/c", "0o100644", 7, b"12345"),
                     ("a/d", "0o120777", 0, b"b/c"), ("TRAILER!!!", "0o0", 0, b"")]
