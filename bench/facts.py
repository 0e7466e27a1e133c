"""What a reader must know of the machine to judge a measurement: read, never guessed; nothing that names a person or a place."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

PACKAGES = ("pyproc-supervisor", "msgspec", "numpy", "loky", "pebble", "ray", "distributed")


def machine() -> dict[str, Any]:
    """Kernel, processor, cores, interpreter, versions of what is measured, profile `strict`, load average of the last minute."""
    return {
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "root": os.geteuid() == 0,
        "versions": {name: version(name) for name in PACKAGES},
        "profile": "strict " + hashlib.sha256(files("pyproc.sandbox").joinpath("profiles/strict.json").read_bytes()).hexdigest()[:16],
        "load_before": round(os.getloadavg()[0], 2),
    }


def version(package: str) -> str:
    """Its version, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith(("model name", "Model", "CPU part")):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_kib(pid: int) -> dict[str, int]:
    """`private` (what would be free without the process) and `pss` (its share of what it has in common) of a process."""
    found = dict.fromkeys(("Pss", "Private_Clean", "Private_Dirty"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0])
    return {"private": found["Private_Clean"] + found["Private_Dirty"], "pss": found["Pss"]}


def below(pid: int | None = None) -> list[int]:
    """The pids of all processes that come from this one."""
    found: list[int] = []
    mine = pid or os.getpid()
    for thread in os.listdir(f"/proc/{mine}/task"):
        for child in Path(f"/proc/{mine}/task/{thread}/children").read_text("ascii").split():
            found += [int(child), *below(int(child))]
    return found
