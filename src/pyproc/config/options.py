"""Sandbox, Limits and Restart: what a pool's workers may do and use, and how often they may die. Frozen, validated when made.

The defaults are the safe ones: profile strict, every layer wanted. Switching a layer off is explicit and visible in
`status()`; no default weakens anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Self

from pyproc.config.units import parse_size, parse_time
from pyproc.config.values import INTENSITY_MAX, SHOWN_MAX, shown, whole
from pyproc.errors import ConfigError

LAYERS = ("descriptors", "environment", "user_namespace", "pid_namespace", "network_namespace", "ipc_namespace",
          "uts_namespace", "cgroup_namespace", "mount_namespace", "rlimits", "capabilities", "no_new_privs", "dumpable",
          "parent_death", "mdwe", "landlock", "seccomp", "cgroup")
WANTED = ("require", "prefer", "off")
COUNT_MAX = 1 << 20  # tasks, descriptors, files
OPEN_FILES_MIN = 16  # descriptors without which CPython does not start


class Frozen:
    """What is set once, by `_set`, and copied and pickled as its own arguments."""

    __slots__: tuple[str, ...] = ()

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """An unknown option is refused before `__init__`, which would make a TypeError of it. Raises ConfigError."""
        for name in options:
            if name not in cls.__slots__:
                raise ConfigError(f"{cls.__name__.lower()}.{name[:SHOWN_MAX]} is unknown; options are {', '.join(cls.__slots__)}")
        return super().__new__(cls)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed; make another {type(self).__name__}")

    __delattr__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in self.__slots__}
        return partial(type(self), **{name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}), ()


class Sandbox(Frozen):
    """`profile`: strict, default or a file in OCI seccomp format; `read`: paths that workers may read;
    `scratch`: bytes of writable space at /scratch (profile default only); `layers`: name -> require, prefer or off."""

    __slots__ = ("layers", "profile", "read", "scratch")

    def __init__(self, profile: str = "strict", *, read: Sequence[str | os.PathLike[str]] = (),
                 scratch: str | int | None = None, layers: Mapping[str, str] | None = None) -> None:
        if not isinstance(profile, str):
            raise ConfigError(f"sandbox.profile is {shown(profile)}; write strict, default or the path of a file as text")
        if isinstance(read, (str, bytes)) or not isinstance(read, Sequence):
            raise ConfigError(f"sandbox.read is {shown(read)}; give a list of paths")
        for path in read:
            if not isinstance(path, (str, os.PathLike)) or os.fspath(path) in ("", b"") or os.path.abspath(os.fspath(path)) == "/":
                raise ConfigError(f"sandbox.read names {shown(path)}; name the files and folders that workers need, by their paths")
        if layers is not None and not isinstance(layers, Mapping):
            raise ConfigError(f"sandbox.layers is {shown(layers)}; give a map of layers to require, prefer or off")
        chosen = dict(layers or {})
        for name, wanted in chosen.items():
            if name not in LAYERS:
                raise ConfigError(f"sandbox.layers names {shown(name)}; layers are {', '.join(LAYERS)}")
            if wanted not in WANTED:
                raise ConfigError(f"sandbox.layers[{name!r}] is {shown(wanted)}; write require, prefer or off")
        if scratch is not None and profile == "strict":
            raise ConfigError("sandbox.scratch is set and profile strict cannot write files; use profile default")
        self._set(profile=profile, read=tuple(os.path.abspath(os.fspath(path)) for path in read), layers=MappingProxyType(chosen),
                  scratch=None if scratch is None else parse_size("sandbox.scratch", scratch))

    profile: str
    read: tuple[str, ...]
    scratch: int | None
    layers: Mapping[str, str]


class Limits(Frozen):
    """What a worker may use. Sizes in bytes or as "64 MiB", times in seconds or as "60 s"."""

    __slots__ = ("cpu_time", "cpus", "file_size", "memory", "open_files", "output", "processes", "request", "response",
                 "scratch_files", "threads")

    def __init__(self, *, memory: str | int = "1 GiB", cpu_time: str | float = "60 s", cpus: float | None = None,
                 processes: int = 1, threads: int = 16, open_files: int = 128, file_size: str | int = "64 MiB",
                 scratch_files: int = 1000, output: str | int = "1 MiB", request: str | int = "8 MiB",
                 response: str | int = "64 MiB") -> None:
        sizes = {"memory": memory, "file_size": file_size, "output": output, "request": request, "response": response}
        for name, size in sizes.items():
            self._set(**{name: parse_size(f"limits.{name}", size)})
        for name in ("request", "response"):
            if not 64 <= getattr(self, name) <= 1 << 31:
                raise ConfigError(f"limits.{name} is {shown(sizes[name])}; write a size from 64 B to 2 GiB")
        if self.memory < 64 << 20:
            raise ConfigError(f"limits.memory is {shown(memory)}; CPython needs at least 64 MiB")
        self._set(cpu_time=parse_time("limits.cpu_time", cpu_time))
        counts: dict[str, Any] = {"processes": processes, "threads": threads, "open_files": open_files,
                                  "scratch_files": scratch_files}
        for name, count in counts.items():
            self._set(**{name: whole(f"limits.{name}", count, OPEN_FILES_MIN if name == "open_files" else 1, COUNT_MAX)})
        if cpus is not None and (isinstance(cpus, bool) or not isinstance(cpus, (int, float)) or not 0 < cpus <= 1024):
            raise ConfigError(f"limits.cpus is {shown(cpus)}; write a number of processors above 0 and at most 1024")
        self._set(cpus=cpus)

    memory: int
    cpu_time: float
    cpus: float | None
    file_size: int
    output: int
    request: int
    response: int
    processes: int
    threads: int
    open_files: int
    scratch_files: int


class Restart(Frozen):
    """How often workers may die: more than `intensity` deaths within `period` (seconds or "60 s") break the pool for one
    period. The names and the rule are those of OTP's supervisor."""

    __slots__ = ("intensity", "period")

    def __init__(self, *, intensity: int = 5, period: str | float = "60 s") -> None:
        self._set(intensity=whole("restart.intensity", intensity, 0, INTENSITY_MAX), period=parse_time("restart.period", period))

    intensity: int
    period: float
