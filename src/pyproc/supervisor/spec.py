"""What the supervisor keeps alive: one frozen description of a pool's workers (OTP: the child specification)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from pyproc.config.options import Limits, Sandbox
from pyproc.host.notify import Notification


class Observer(Protocol):
    """Is told of each notified call that the door would refuse, and may let it through. For `pyproc policy learn` only."""

    def asked(self, call: Notification, name: str, *, importing: bool) -> int:
        """0 to let the call go on, else an errno. Called on the supervision thread while the caller waits."""


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """`script` is the absolute path, `source` its text; `solo`: a boot for each worker instead of a zygote's fork; `apart`: no worker
    may find what another one left in what the import made; `parked`: the most workers that wait beyond those, for isolation by call;
    `ahead`: the most calls that are sent to a worker beside the one that runs; `busy_polling`: seconds that both ends of a call poll
    before they sleep; `intensity` deaths within `period` seconds break the pool for one period. `observer`: of a throw-away pool in
    which a policy is learnt; no option of a pool leads here."""

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
    apart: bool = False
    parked: int = 0
    ahead: int = 0
    busy_polling: float = 0.0
    intensity: int = 5
    period: float = 60.0
    observer: Observer | None = None
