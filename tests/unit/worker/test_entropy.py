"""Two workers of one zygote draw different numbers."""

from __future__ import annotations

import random

import pytest

from pyproc_worker.entropy import reseed


def test_both_global_generators_start_anew() -> None:
    numpy_random = pytest.importorskip("numpy.random", reason="needs numpy")
    kept = random.getstate()
    drawn = set()
    try:
        for _ in range(4):
            random.seed(1)
            numpy_random.seed(1)
            reseed()
            drawn.add((random.random(), float(numpy_random.random())))
    finally:
        random.setstate(kept)
    assert len({a for a, _ in drawn}) == len({b for _, b in drawn}) == 4
