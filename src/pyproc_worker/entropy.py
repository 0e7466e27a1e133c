"""After a fork every worker would draw the same random numbers: reseed what is loaded.

Only the two global generators can be found from here. A generator that a script made at import (`random.Random()`,
`numpy.random.default_rng()`) is the script's own: it is the same in each worker until the script makes a new one.
"""

from __future__ import annotations

import os
import sys

NUMPY_WORDS = 8  # 32-bit words: 256 bits, as no one should guess one worker's numbers from another's


def reseed() -> None:
    """Reseed `random` and numpy's global generator from the kernel, where they are imported."""
    seed = getattr(sys.modules.get("random"), "seed", None)
    if seed is not None:
        seed()
    seed = getattr(sys.modules.get("numpy.random"), "seed", None)
    if seed is not None:
        raw = os.urandom(4 * NUMPY_WORDS)
        seed([int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)])
