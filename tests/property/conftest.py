"""Fewer examples where the main run shows the properties too: PYPROC_EXAMPLES of each, set by tools/elsewhere.py."""

from __future__ import annotations

import os

from hypothesis import settings

if "PYPROC_EXAMPLES" in os.environ:
    settings.register_profile("elsewhere", max_examples=int(os.environ["PYPROC_EXAMPLES"]))
    settings.load_profile("elsewhere")
