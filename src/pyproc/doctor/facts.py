"""What was measured of one pool, as values, and what makes a name, a value or a path sensitive. Pure.

Rules: the value of an environment variable is looked at and never kept. A path is judged by what lies there for the uid that
workers have: a key that they cannot open is no exposure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pyproc.sandbox.plan import LayerState
from pyproc.sandbox.secrets import KERNEL_VIEWS

_SECRET_NAME = re.compile(r"(?:^|_)(?:PASS(?:WORD|WD|PHRASE)?|SECRET|TOKEN|(?:API|PRIVATE|ACCESS)_?KEY|CREDENTIAL|AUTH)S?(?:_|$)")
_SECRET_VALUE = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in a URL": re.compile(r"://[^/\s:@]*:[^/\s:@]+@"),
    "a signed token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\."),
    "a key with a known beginning": re.compile(
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{30,}|xox[abprs]-\w+|sk-[\w-]{20,}|pyp_\w+_[\w-]{20,})"),
}


class Place(NamedTuple):
    """A path of `sandbox.read`: why it is `wide` (or ""), the files below it that look like `secrets` and that workers can
    open, and whether it was seen `whole`, as the search is bounded."""

    path: str
    wide: str
    secrets: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class Facts:
    """`measured`: on a started pool, or only from the plan, with the `refusal`. Uids as the host sees them; `memory` and
    `machine_memory` in bytes, `timeout` in seconds; `allowed`: system calls that reach the kernel."""

    pool: str
    measured: bool
    refusal: str
    layers: Mapping[str, LayerState]
    profile: str
    allowed: frozenset[str]
    supervisor_uid: int
    worker_uid: int | None
    secret_variables: Mapping[str, str]
    places: tuple[Place, ...]
    scratch: int
    isolation: str
    workers: int
    memory: int
    machine_memory: int
    cpus: float | None
    processes: int
    timeout: float
    rlimits: Mapping[str, int] = field(default_factory=dict)

    def enforced(self, layer: str) -> bool:
        """Whether the layer is in force."""
        return self.layers[layer].state == "enforced"


def secret_variable(name: str, value: str) -> str:
    """Why this variable looks like a secret, or ""."""
    if value and _SECRET_NAME.search(name.upper()):
        return "its name"
    return next((why for why, pattern in _SECRET_VALUE.items() if pattern.search(value)), "")


def wide(path: str, homes: Collection[str]) -> str:
    """Why this absolute path is wider than a worker needs, or "". `homes`: home folders of the machine."""
    path = path.rstrip("/") or "/"
    if any(home == path or home.startswith(f"{path}/") for home in homes):
        return "a home folder, or above one"
    if path.count("/") < 2:
        return "a folder at the top of the file system"
    if any(path == folder or path.startswith(f"{folder}/") for folder in KERNEL_VIEWS):
        return "of the kernel or of running services"
    return ""
