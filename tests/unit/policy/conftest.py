"""Makes `policy_subjects` importable for the tests beside it: pytest's importlib mode adds no folder to the path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("policy_subjects", Path(__file__).with_name("policy_subjects.py"))
assert _spec is not None and _spec.loader is not None
sys.modules["policy_subjects"] = _module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
