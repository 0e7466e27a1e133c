"""What an interpreter needs to see inside the sandbox: its standard library, its packages, the system's libraries.

Found by asking this process (or, for another interpreter, that one, run with -I); never from the caller's sys.path as a
whole, so that a script imports only what is installed or listed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from typing import Any

import msgspec

from pyproc.errors import ConfigError

PACKAGE_FOLDERS = ("site-packages", "dist-packages")
SYSTEM_PATHS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
                "/usr/share/zoneinfo")
ASK = ("import sys, sysconfig, json; print(json.dumps([sys.executable, sys.base_prefix, sysconfig.get_paths()['stdlib'],"
       " sysconfig.get_paths()['platstdlib'], sys.path, sysconfig.get_config_var('SOABI')]))")
ANSWER_SECONDS = 30.0


class Interpreter(msgspec.Struct, frozen=True):
    """`executable`; `readable` paths to mount; `site_path` folders of packages; `packages`: where pyproc_worker is."""

    executable: str
    readable: tuple[str, ...]
    site_path: tuple[str, ...]
    packages: str
    sys_path: tuple[str, ...]

    @property
    def importable(self) -> tuple[str, ...]:
        """Folders whose modules can be imported: of the standard library, which `readable` begins with, and of packages."""
        return (*self.readable[:2], *self.site_path, *self.sys_path)


def describe(python: str | None = None) -> Interpreter:
    """The interpreter `python` (default: ours). Raises ConfigError naming the path when it cannot be run, or cannot run a worker."""
    if python is None or (os.path.realpath(python) == os.path.realpath(sys.executable) and python == sys.executable):
        paths = sysconfig.get_paths()
        found: list[Any] = [sys.executable, sys.base_prefix, paths["stdlib"], paths["platstdlib"], sys.path]
    else:
        try:
            run = subprocess.run([python, "-I", "-c", ASK], capture_output=True, timeout=ANSWER_SECONDS, check=True)
            found = json.loads(run.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise ConfigError(f"python is {python!r}, which {_said(error)}; give the path of a Python interpreter") from error
        abi = sysconfig.get_config_var("SOABI")
        if found[5:] != [abi]:
            raise ConfigError(f"python is {python!r}, for which extension modules are {str(found[5:])[:80]} and not {abi!r}: a worker "
                              "needs msgspec as it is here; use an interpreter of the same minor version")
    executable, base_prefix, stdlib, platstdlib = (str(part) for part in found[:4])
    path = [str(entry) for entry in found[4]]
    site_path = [p for p in path if os.path.basename(p) in PACKAGE_FOLDERS and os.path.isdir(p)]
    ours = {_folder_of(name) for name in ("pyproc_worker", "pyproc_wire", "msgspec")}
    packages = _folder_of("pyproc_worker")
    # `ours` differs from site_path in a source tree; the import system must be able to list the folder
    readable = [stdlib, platstdlib, os.path.join(base_prefix, "lib"), *site_path, *sorted(ours), *SYSTEM_PATHS]
    return Interpreter(executable, tuple(readable), tuple(site_path), packages, tuple(sorted(ours - set(site_path))))


def _said(error: Exception) -> str:
    """What became of ASK, in few words and without it."""
    if isinstance(error, OSError):
        return f"cannot be run: {error.strerror}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"does not run Python: it ended with status {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"has not answered within {ANSWER_SECONDS:.0f} s"
    return "does not answer as Python does"


def _folder_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"package {package} is not installed beside pyproc; install pyproc-supervisor again")
    return os.path.dirname(os.path.abspath(next(iter(spec.submodule_search_locations))))
