"""A configuration that is found runs programs: it counts only where nobody else could have written it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyproc.cli.program import run
from pyproc.config import place
from pyproc.errors import ConfigError

OTHER = os.geteuid() + os.getegid() + 40001  # nobody that we are


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    made.chmod(0o755)
    (made / "pyproc.toml").write_text("")
    (made / "pyproc.toml").chmod(0o644)
    monkeypatch.chdir(made)
    return made


def of_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(path, OTHER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)  # only root can give a file away: we become the other one


def test_ones_own_is_found(folder: Path) -> None:
    assert place.found() == "pyproc.toml"
    (folder / "pyproc.toml").chmod(0o664)  # by the group that is the user's own
    folder.chmod(0o775)
    assert place.found() == "pyproc.toml"


@pytest.mark.parametrize("whose", ["pyproc.toml", "."])
def test_what_another_owns_is_refused(folder: Path, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_another(folder / whose, monkeypatch)
    with pytest.raises(ConfigError, match=r"was found and not named, and '/.*' is of uid \d+ with mode .*: --config pyproc.toml"):
        place.found()


@pytest.mark.parametrize(("which", "mode"), [("pyproc.toml", 0o646), (".", 0o757), (".", 0o1777)])
def test_what_others_may_write_is_refused(folder: Path, which: str, mode: int) -> None:
    (folder / which).chmod(mode)
    with pytest.raises(ConfigError, match=f"with mode {mode:o}"):
        place.found()


@pytest.mark.parametrize("which", ["pyproc.toml", "."])
def test_what_another_group_may_write_is_refused(folder: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / which).chmod(0o775)
    monkeypatch.setattr(os, "getegid", lambda: OTHER)
    if os.geteuid() == 0:
        os.chown(folder / which, -1, OTHER + 1)
    with pytest.raises(ConfigError, match="with mode 775"):
        place.found()


def test_a_link_is_judged_where_it_leads_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("")
    (folder / "pyproc.toml").unlink()
    (folder / "pyproc.toml").symlink_to(tmp_path / "real.toml")
    assert place.found() == "pyproc.toml"
    (tmp_path / "real.toml").chmod(0o666)
    with pytest.raises(ConfigError, match=r"real.toml' is of uid"):
        place.found()


@pytest.mark.parametrize("verb", [("policy", "show"), ("policy", "explain", "fork"), ("policy", "export", "--format", "oci"),
                                  ("doctor",), ("functions",), ("call", "f"), ("policy", "learn", "--", "f")])
def test_no_verb_runs_what_anothers_configuration_names(folder: Path, tmp_path: Path, verb: tuple[str, ...]) -> None:
    ran, evil = tmp_path / "ran", folder / "evil"
    evil.write_text(f"#!/bin/sh\necho > {ran}\n")
    evil.chmod(0o755)
    (folder / "worker.py").write_text("")
    (folder / "pyproc.toml").write_text('[pools.main]\nscript = "worker.py"\npython = "./evil"\n')
    folder.chmod(0o777)
    assert run(verb) == 78 and not ran.exists()
