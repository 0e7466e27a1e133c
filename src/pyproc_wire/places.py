"""Where a worker finds the ends of its channel and its arenas: descriptor numbers, placed by the worker's side, looked at from
outside. Where there is no arena its places lead to /dev/null."""

from __future__ import annotations

from typing import Final

ANSWERS: Final = 3
REQUESTS: Final = 4
GREETING: Final = 5
ARENA_REQUESTS: Final = 6
ARENA_ANSWERS: Final = 7
