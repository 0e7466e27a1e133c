"""What a worker is given: it is made whole, or nothing of it stays open."""

from __future__ import annotations

import errno
import os

import pytest

from pyproc.supervisor.outfit import Outfit


def test_an_outfit_that_cannot_be_made_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, made = os.pipe, []

    def scarce() -> tuple[int, int]:
        if len(made) == limit:
            raise OSError(errno.EMFILE, "no descriptor is left")
        made.append(pipe())
        return made[-1]

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pipe", scarce)
    for limit in range(4):
        made.clear()
        with pytest.raises(OSError, match="no descriptor"):
            Outfit("w1")
        assert set(os.listdir("/proc/self/fd")) == before, limit
