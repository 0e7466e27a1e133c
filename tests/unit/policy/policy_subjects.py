"""Policies with values that a test chooses, and the real programs that read what is made of them."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyproc import Limits, Sandbox
from pyproc.policy import survey
from pyproc.policy.subject import Policy
from pyproc.supervisor.spec import WorkerSpec


@functools.cache
def policy(profile: str = "strict") -> Policy:
    spec = WorkerSpec("pool", "/", "", 2, Sandbox(profile), Limits(cpus=0.5), {"SECRET": "hidden value"}, None, (), solo=False)
    return survey.anywhere(spec)


def having(**changes: Any) -> Policy:
    return dataclasses.replace(policy(), **changes)


def reading(path: str) -> Policy:
    """A policy whose only readable path is `path`, which need not exist."""
    return having(readable=(path,), listed=(path,))


def run(program: str, *arguments: str, package: str, cwd: Path | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of the system, or skip with its name."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin") or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed ({package})")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=50, check=False, cwd=cwd, **more)
