"""What the supervisor keeps alive: one frozen description of a pool's workers (OTP: the child specification)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pyproc.config.options import Limits, Sandbox


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """`script` is the absolute path, `source` its text; `solo`: a boot for each worker instead of a zygote's fork;
    `intensity` deaths within `period` seconds break the pool for one period."""

    name: str
    script: str
    source: str
    workers: int
    sandbox: Sandbox
    limits: Limits
    environment: Mapping[str, str]
    python: str | None
    preload: tuple[str, ...]
    solo: bool
    intensity: int = 5
    period: float = 60.0
