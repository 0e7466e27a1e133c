"""After a fork every worker would draw the same random numbers: reseed what is loaded."""

from __future__ import annotations

import os
import sys


def reseed() -> None:
    """Reseed `random` and numpy's global generator from the kernel, where they are imported."""
    random = sys.modules.get("random")
    if random is not None:
        random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))
