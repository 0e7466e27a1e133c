"""The pool that a file's tests share."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from pyproc import Limits, Pool


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(pathlib.Path(__file__).with_name("subject.py"), workers=2, limits=Limits(memory="512 MiB")) as made:
        yield made
