"""What a learning run does not show: judged by what is below a path, where it leads, and who reaches it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pyproc.policy import withheld
from pyproc.sandbox.paths import View

VIEW = View(True, (), (), {}, "/scratch", os.geteuid(), os.getegid(), frozenset(os.getgroups()))
OTHERS = VIEW._replace(uid=231072, gid=231072, groups=frozenset())


def test_plain_files_and_folders_are_shown(tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "folder" / "below" / "file").write_text("")
    (tmp_path / "folder" / "link").symlink_to("below/file")
    for name in ("folder", "folder/below/file", "folder/link"):
        assert withheld.reason(str(tmp_path / name), VIEW) == ""


@pytest.mark.parametrize("name", ["a/b/.ssh", "a/id_rsa", "a/.env", "a/.config/gcloud", "a/b/server.key"])
def test_a_secret_at_any_depth_withholds_the_folder_and_names_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert repr(str(tmp_path / name)) in withheld.reason(str(tmp_path), VIEW)


def test_a_link_is_judged_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("")
    (tmp_path / "file").symlink_to(".ssh/config")
    (tmp_path / "folder").symlink_to(".ssh")
    for name in ("file", "folder", "folder/config"):
        assert "credentials" in withheld.reason(str(tmp_path / name), VIEW), name


def test_a_search_that_meets_its_bound_withholds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withheld, "NAMES_MAX", 3)
    for number in range(3):
        (tmp_path / str(number)).touch()
    assert withheld.reason(str(tmp_path), VIEW) == ""
    (tmp_path / "3").touch()
    assert "more than 3 names" in withheld.reason(str(tmp_path), VIEW)


def test_folders_too_deep_withhold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withheld, "DEPTH_MAX", 3)
    (tmp_path / "2" / "3").mkdir(parents=True)
    assert withheld.reason(str(tmp_path), VIEW) == ""
    (tmp_path / "2" / "3" / "4").mkdir()
    assert "more than 3 folders" in withheld.reason(str(tmp_path), VIEW)


def test_doors_to_others_withhold(tmp_path: Path) -> None:
    (tmp_path / "socket").mkdir()
    (tmp_path / "pipe").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(tmp_path / "socket", os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/door")
        os.close(folder)
    os.mkfifo(tmp_path / "pipe" / "door")
    for name in ("socket", "pipe", "socket/door", "pipe/door"):
        assert "door' is a socket, a pipe or a device" in withheld.reason(str(tmp_path / name), VIEW), name


def test_what_the_workers_uid_cannot_reach_by_itself_is_withheld(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o644)
    tmp_path.chmod(0o700)
    assert "is closed to uid 231072" in withheld.reason(str(tmp_path / "file"), OTHERS)


def test_a_folder_that_cannot_be_listed_is_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("folder"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "cannot be looked through: Permission denied" in withheld.reason(str(tmp_path), VIEW)
