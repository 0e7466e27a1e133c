"""A file that is named or found is read as a regular one, or refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyproc.config import load
from pyproc.config.files import read_regular
from pyproc.doctor import pins
from pyproc.doctor.survey import source
from pyproc.errors import ConfigError
from pyproc.pool import options
from pyproc.sandbox import profile
from pyproc.sandbox.rules import ProfileError


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert read_regular(tmp_path / "file", 3) == b"abc"
    with pytest.raises(OSError, match="longer than 2 bytes"):
        read_regular(tmp_path / "file", 2)


@pytest.fixture(params=["pipe", "device", "folder"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


def test_what_is_no_regular_file_is_refused_at_once_wherever_it_is_named(special: Path) -> None:
    path = str(special)
    with pytest.raises(OSError, match="no regular file"):
        read_regular(path, 10)
    with pytest.raises(ConfigError, match="cannot be read: it is no regular file"):
        load.tables_of(path)
    with pytest.raises(ConfigError, match=r"cannot be read: .*no regular file"):
        options.read(path)
    with pytest.raises(ProfileError, match=r"cannot be read \(it is no regular file\)"):
        profile.load(path)
    assert pins.look((special.parent,), (), installed=False).faults == ("it cannot be read: it is no regular file",)
    assert source(path) is None
