"""safe_open: both ways to open, and every way out that is closed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyproc_worker import safe_open

ways = pytest.mark.parametrize("way", ["openat2", "by_component"])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "data"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "file").write_text("inside é")
    (tmp_path / "data-evil").mkdir()
    (tmp_path / "data-evil" / "secret").write_text("outside")
    (base / "link").symlink_to("../data-evil/secret")
    (base / "folder_link").symlink_to("../data-evil")
    (base / "inner_link").symlink_to("sub/file")
    os.mkfifo(base / "pipe")
    return base


def choose(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "by_component":
        monkeypatch.setitem(safe_open.__globals__, "_openat2", lambda *args: None)


@ways
def test_a_file_beneath_is_opened(base: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    choose(monkeypatch, way)
    with safe_open(base, "sub/file") as file:
        assert file.read() == "inside é".encode()
    with safe_open(base, Path("sub/file"), "r") as file:
        assert file.read() == "inside é"
    with safe_open(base, "sub/file", "w") as file:
        file.write("new")
    assert (base / "sub" / "file").read_text() == "new"


@ways
@pytest.mark.parametrize("path", ["", ".", "..", "/etc/passwd", "../data-evil/secret", "sub/../file", "sub//file", "a\0b", "sub/"])
def test_a_path_that_could_leave_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch, way: str, path: Any) -> None:
    choose(monkeypatch, way)
    with pytest.raises(ValueError, match="is not a plain path"):
        safe_open(base, path)


@ways
@pytest.mark.parametrize("path", ["link", "folder_link/secret", "inner_link", "absent", "sub/file/x"])
@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_links_are_not_followed(base: Path, monkeypatch: pytest.MonkeyPatch, way: str, path: str, mode: str) -> None:
    choose(monkeypatch, way)
    if path == "absent" and mode == "wb":
        safe_open(base, path, mode).close()
        return
    with pytest.raises(OSError):
        safe_open(base, path, mode)
    assert (base.parent / "data-evil" / "secret").read_text() == "outside"


@ways
def test_a_pipe_is_neither_waited_for_nor_opened(base: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    choose(monkeypatch, way)
    with pytest.raises(ValueError, match="not a regular file"):
        safe_open(base, "pipe")


def test_an_unknown_mode_is_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="use one of"):
        safe_open(base, "sub/file", "a+")
