"""Where a worker finds the ends of its channel: descriptor numbers, placed by the worker's side, looked at from outside."""

from __future__ import annotations

from typing import Final

ANSWERS: Final = 3
REQUESTS: Final = 4
GREETING: Final = 5
