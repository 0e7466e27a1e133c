"""Which group a worker gets, and that none is left: the folders are doubles, the kernel's are in tests/unit/host and integration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pyproc.config.options import Limits
from pyproc.host import cgroup
from pyproc.supervisor import groups
from pyproc.supervisor.loop import Loop


class Folders:
    """Stands for the kernel's folders: which groups there are, and whether one more is granted."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.granted = True

    def group(self, folders: dict[str, str], **limits: Any) -> Any:
        there, path = self.there, folders["memory"]
        if not self.granted:
            raise OSError(12, "no memory")
        there.append(path)

        class Made:
            def remove(self, seconds: float = 1.0) -> bool:
                there.remove(path)
                return True

        return Made()


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Folders:
    folders = Folders()
    monkeypatch.setattr(groups, "Group", folders.group)
    monkeypatch.setattr(cgroup, "sweep", lambda parents: None)
    monkeypatch.setattr(cgroup, "remove", lambda folder: None)
    return folders


@pytest.fixture
def made(folders: Folders) -> Iterator[groups.Groups]:
    loop = Loop()
    yield groups.Groups({"memory": "/memory"}, Limits(), loop, off=False)
    loop.close()


def test_the_next_workers_group_is_made_once_and_given_once(folders: Folders, made: groups.Groups) -> None:
    made.prepare()
    made.prepare()
    assert len(folders.there) == 1
    first, second = made.for_worker(), made.for_worker()
    assert first is not second
    assert len(set(folders.there)) == 2


def test_a_group_that_cannot_be_made_ahead_is_tried_again_when_it_is_needed(folders: Folders, made: groups.Groups) -> None:
    folders.granted = False
    made.prepare()
    with pytest.raises(OSError, match="no memory"):
        made.for_worker()
    folders.granted = True
    made.for_worker()
    assert len(folders.there) == 1


def test_one_that_was_made_ahead_and_those_that_are_leaving_are_taken_down(folders: Folders, made: groups.Groups) -> None:
    made.remove(made.for_worker())
    made.prepare()
    assert len(folders.there) == 2
    made.take_down()
    assert folders.there == []
