"""Whether what a worker script imports is pinned, with hashes, beside it, and installed as pinned.

A requirements file counts if each of its requirements has one exact version and a hash; of lock files those formats count that
always hold hashes. An import is traced to its distribution by what is installed.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from pyproc.config.files import read_regular

LOCKS = ("pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock")
REQUIREMENTS = ("requirements.txt", "requirements.lock")
BYTES_MAX = 16 << 20  # a longer file is no list of requirements
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*===?\s*([^\s;,*]+)\s*(?:;[^#]*)?(?:\s--hash=|\s*$)")
_LOCKED = re.compile(r"""^\s*"?name"?\s*=\s*"([^"]+)"|^\s{8}"([A-Za-z0-9._-]+)": \{""", re.MULTILINE)


class Pins(NamedTuple):
    """`file` that pins, or ""; `faults`: what is wrong with it, each a sentence."""

    file: str
    faults: tuple[str, ...]


def look(folders: Iterable[Path], imports: Collection[str], *, installed: bool) -> Pins:
    """The pins in the first of `folders` that has any. `installed`: the interpreter is ours, so that its versions can be told."""
    for folder in folders:
        for name in (*REQUIREMENTS, *LOCKS):
            path = folder / name
            try:
                text = read_regular(path, BYTES_MAX).decode("utf-8", "replace")
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in the path
                continue
            except OSError as error:
                return Pins(str(path), (f"it cannot be read: {error.strerror}",))
            if name in LOCKS:
                pinned = {_plain(found[0] or found[1]): "" for found in _LOCKED.findall(text)}
                faults = [] if "sha256" in text else ["it holds no hashes"]
            else:
                pinned, faults = _requirements(text)
            if installed:
                faults += _differing(pinned) + _unlisted(imports, pinned)
            return Pins(str(path), tuple(faults))
    return Pins("", (f"no {', '.join((*REQUIREMENTS, *LOCKS))} beside the script or the configuration",))


def _requirements(text: str) -> tuple[dict[str, str], list[str]]:
    pinned: dict[str, str] = {}
    faults: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line or (line.startswith("-") and not line.startswith("--hash")):
            if re.match(r"-(r|-requirement|e|-editable)\b", line):
                faults.append(f"{line.split()[0]} leads elsewhere, which is not followed")
            continue
        match = _PIN.match(line)
        if match is None:
            faults.append(f"{line.split()[0]} has no exact version")
            continue
        pinned[_plain(match[1])] = match[2]
        if "--hash=sha" not in line:
            faults.append(f"{match[1]} has no hash")
    return pinned, faults


def _differing(pinned: dict[str, str]) -> list[str]:
    found = []
    for name, version in pinned.items():
        try:
            have = importlib.metadata.version(name) if version else version
        except importlib.metadata.PackageNotFoundError:
            continue
        if have != version:
            found.append(f"{name} is installed as {have}, pinned is {version}")
    return found


def _unlisted(imports: Collection[str], pinned: dict[str, str]) -> list[str]:
    known = importlib.metadata.packages_distributions()
    return [f"{name} is imported and not pinned" for name in sorted(imports)
            if name in known and not {_plain(distribution) for distribution in known[name]} & pinned.keys()]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
