"""Finds the CPython interpreters on this machine that the suite can also run on.

Looks at python3 and python3.N in each folder of PATH, and at the versions below a pyenv (the one in the home folder, and
the one that the command `pyenv` on PATH belongs to), without running pyenv, whose shims answer for one version only.
One interpreter for each minor version: two patch releases of one minor version differ too little to pay for twice.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OLDEST = (3, 11)
QUESTION = "import sys; print(sys.executable, sys.implementation.name, *sys.version_info[:3])"
ANSWER_SECONDS = 20  # a cold start on a busy machine; an interpreter that needs longer is broken


class Interpreter(NamedTuple):
    """One CPython: where it is and its version."""

    path: str
    minor: tuple[int, int]
    version: str


def candidates() -> Iterator[Path]:
    """Every file that is named like an interpreter, in the order of PATH, then those of pyenv."""
    roots = [Path(os.environ.get("HOME", "/nonexistent")) / ".pyenv"]
    if command := shutil.which("pyenv"):
        roots += [Path(command).parent.parent, Path(command).resolve().parent.parent]
    shims = {str(root / "shims") for root in roots}  # shell scripts, each some 0.2 s, for what stands below `versions` too
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        if directory and directory.rstrip("/") not in shims and os.path.isdir(directory):
            names = [name for name in os.listdir(directory) if re.fullmatch(r"python3(\.\d+)?", name)]
            yield from (Path(directory) / name for name in sorted(names))
    for root in roots:
        try:
            yield from sorted(root.glob("versions/*/bin/python3"))
        except OSError:  # a home that we may not read holds nothing for us
            continue


def ask(path: Path) -> Interpreter | None:
    """What this file says it is; None if it is no CPython that we support."""
    try:
        answer = subprocess.run(
            [str(path), "-I", "-c", QUESTION], capture_output=True, text=True, timeout=ANSWER_SECONDS,
            stdin=subprocess.DEVNULL, check=False,
        ).stdout.split()  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if len(answer) != 5 or answer[1] != "cpython":
        return None
    major, minor = int(answer[2]), int(answer[3])
    if (major, minor) < OLDEST:
        return None
    return Interpreter(answer[0], (major, minor), ".".join(answer[2:]))


def find() -> list[Interpreter]:
    """All supported interpreters, each executable once, in the order in which they were met."""
    found: dict[str, Interpreter] = {}
    seen: set[str] = set()
    for path in candidates():
        real = os.path.realpath(path)
        if real in seen or not os.access(path, os.X_OK):
            continue
        seen.add(real)
        interpreter = ask(path)
        if interpreter is not None:
            found.setdefault(os.path.realpath(interpreter.path), interpreter)
    return list(found.values())


def one_a_minor(interpreters: list[Interpreter], *, but: tuple[int, int]) -> list[Interpreter]:
    """The first interpreter of each minor version, without the given one."""
    chosen: dict[tuple[int, int], Interpreter] = {}
    for interpreter in interpreters:
        if interpreter.minor != but:
            chosen.setdefault(interpreter.minor, interpreter)
    return [chosen[minor] for minor in sorted(chosen)]
