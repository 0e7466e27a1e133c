"""Makes a virtual environment, installs hash-pinned packages into it, and the project as a built wheel.

Lives here: everything `make` does before it can run something of ours. Run as `python tools/environment.py DIR NAME…
[--project]`, where NAME is a file of requirements/ without its ending. Standard library only.

Rules and reasons:
* Nothing is written outside the checkout: the package cache is .cache/pip unless PIP_CACHE_DIR says otherwise.
* Every package is checked against its hash and is a wheel: installing must not run a package's build code.
* The project is built by the pinned hatchling, without build isolation, which would fetch unpinned packages, and the
  wheel is installed: what the tests run against is what a user gets, and not the source tree.
* Each step leaves a stamp with the hash of what it was made from; a step whose stamp fits is skipped. Stamps are by
  content, as a checkout changes every modification time.
* A distribution's python3 may lack ensurepip, or pip, but not both: pip of the outer interpreter installs into the
  environment with `pip --python`, else ensurepip puts a pip inside.
* One at a time: a second `make` in the same checkout waits for the first one's lock.
* A failure is one line that says what is missing, and then what the failing program said.

Rejected: `python -m venv` alone (needs ensurepip); modification times as make compares them (see above); a second pip
that upgrades the first (one more download, and it would have to be pinned too).
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
STEP_SECONDS = 900  # one pip run on a slow line; beyond that a line is dead and a person should know
MARK = "pyproc-base"  # the file in an environment that says which interpreter it was made from


class Missing(Exception):
    """Something this machine lacks, in one line that names the remedy."""


def run(arguments: list[str], failure: str) -> None:
    """Run a program quietly; raise Missing with its last words if it fails."""
    environment = dict(os.environ)
    environment.setdefault("PIP_CACHE_DIR", str(TOP / ".cache" / "pip"))
    environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_ROOT_USER_ACTION="ignore")
    environment.pop("PYTHONPATH", None)  # a foreign path would decide which pip runs
    try:
        done = subprocess.run(
            arguments, cwd=TOP, env=environment, stdin=subprocess.DEVNULL, timeout=STEP_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as timeout:
        raise Missing(f"{failure} (no end after {STEP_SECONDS} s)") from timeout
    if done.returncode:
        raise Missing(failure + "\n  " + "\n  ".join(done.stdout.strip().splitlines()[-8:]))


def works(arguments: list[str]) -> bool:
    """Whether a program runs and ends with 0."""
    try:
        return not subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=120, check=False,
        ).returncode  # fmt: skip
    except OSError:
        return False


def digest(paths: list[Path]) -> str:
    """One hash over names and contents."""
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path.relative_to(TOP)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def make(directory: Path) -> None:
    """Make the environment, or make it anew if its interpreter is another one or gone."""
    base = f"{os.path.realpath(sys.executable)} {sys.version}"
    mark = directory / MARK
    if mark.is_file() and mark.read_text() == base and works([str(directory / "bin" / "python"), "-c", ""]):
        return
    if directory.exists():
        shutil.rmtree(directory)
    run(
        [sys.executable, "-m", "venv", "--without-pip", str(directory)],
        f"{sys.executable} cannot make a virtual environment: install its venv module (python3-venv)",
    )
    mark.write_text(base)


@functools.cache  # the answer costs 0.6 s and is asked for each file of requirements
def pip_of(directory: Path) -> list[str]:
    """The command line of a pip that installs into this environment."""
    python = str(directory / "bin" / "python")
    if works([python, "-m", "pip", "--version"]):
        return [python, "-m", "pip"]
    if works([sys.executable, "-m", "pip", "--python", python, "--version"]):
        return [sys.executable, "-m", "pip", "--python", python]
    run(
        [python, "-m", "ensurepip", "--default-pip"],
        f"{sys.executable} has neither pip >= 22.3 nor ensurepip: install python3-pip or python3-venv",
    )
    return [python, "-m", "pip"]


def install(directory: Path, name: str) -> None:
    """Install one file of pinned requirements."""
    requirements = TOP / "requirements" / f"{name}.txt"
    stamp = directory / f"{name}.stamp"
    want = digest([requirements])
    if stamp.is_file() and stamp.read_text() == want:
        return
    print(f"  packages of requirements/{name}.txt", flush=True)
    run(
        [*pip_of(directory), "install", "--quiet", "--no-compile", "--require-hashes", "--no-deps", "--only-binary", ":all:",
         "--requirement", str(requirements)],
        f"the packages of requirements/{name}.txt could not be installed: no network, no package index in reach, "
        "or a file whose hash is not the pinned one",
    )  # fmt: skip
    # Compiled on every core and without the packages' own tests, which are half of it; a file that does not compile is data.
    works([str(directory / "bin" / "python"), "-m", "compileall", "-q", "-j", "0", "-x", "/tests/", str(directory / "lib")])
    stamp.write_text(want)


def install_project(directory: Path) -> None:
    """Build the wheel, unless the same sources were built before, and install it."""
    sources = [
        path for path in sorted((TOP / "src").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]  # fmt: skip
    want = digest([TOP / "pyproject.toml", TOP / "README.md", TOP / "LICENSE", *sources])
    stamp = directory / "project.stamp"
    if stamp.is_file() and stamp.read_text() == want:
        return
    print("  this project, as a wheel", flush=True)
    folder = TOP / "dist" / want[:16]
    if not list(folder.glob("*.whl")):
        shutil.rmtree(TOP / "dist", ignore_errors=True)
        builder = [str(TOP / ".venv" / "bin" / "python"), "-m", "hatchling", "build", "-t", "wheel"]
        run([*builder, "-d", str(folder)], "the wheel could not be built")
    (wheel,) = folder.glob("*.whl")
    run(
        [*pip_of(directory), "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)],
        f"the wheel {wheel.name} could not be installed",
    )
    stamp.write_text(want)


def main() -> int:
    """Do the steps whose stamps do not fit."""
    parser = argparse.ArgumentParser(description="make an environment with hash-pinned packages")
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--project", action="store_true", help="install this project too, as a built wheel")
    options = parser.parse_args()
    directory = options.directory.absolute()
    lock = TOP / ".cache" / "environment.lock"
    try:
        lock.parent.mkdir(exist_ok=True)
        held = lock.open("w")
    except OSError as error:
        print(f"pyproc: the checkout cannot be written: {error}", file=sys.stderr)
        return 1
    fcntl.flock(held, fcntl.LOCK_EX)  # ends with the process
    try:
        make(directory)
        for name in options.names:
            install(directory, name)
        if options.project:
            install_project(directory)
    except Missing as missing:
        print(f"pyproc: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
