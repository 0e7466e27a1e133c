"""`pyproc init [DIR]`: a project that works at once. Never overwrites."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from pyproc.cli import output, target
from pyproc.errors import ConfigError

WORKER = '''\
"""Functions that pyproc calls in a sandbox."""

from pyproc_worker import expose, run_worker


@expose
def predict(req: dict) -> dict:
    return {"result": req["value"] * 2}


@expose
def area(width: float, height: float) -> float:
    return width * height


if __name__ == "__main__":
    run_worker()
'''
CONFIG = '''\
[pools.main]
script = "worker.py"
workers = 2
timeout = "30 s"

[pools.main.sandbox]
profile = "strict"

[pools.main.limits]
memory = "1 GiB"
'''
README = '''\
# A pyproc project

    pyproc call --worker worker.py predict '{"value": 42}'
    pyproc functions --config pyproc.toml
    pyproc doctor

From Python:

    from pyproc import Pool

    with Pool("worker.py", workers=2) as pool:
        print(pool.call("predict", {"value": 42}))
'''
FILES = {"worker.py": WORKER, "pyproc.toml": CONFIG, "README.md": README}


@click.command(short_help="Make a working project.")
@click.argument("folder", metavar="[DIR]", default=".")
@target.shared
def command(folder: str, config: str | None, *, as_json: bool) -> None:
    """Make worker.py, pyproc.toml and README.md in DIR. A file that is there already is never overwritten."""
    folder = os.path.normpath(folder)  # or a `..` behind a folder that is not there would make that too
    base = Path(folder).absolute()
    there = [name for name in FILES if (base / name).exists() or (base / name).is_symlink()]
    if there:
        raise ConfigError(f"folder {folder!r} has {', '.join(there)} already, not overwritten; use another folder")
    made = [path for path in (base, *base.parents) if not path.exists()]
    try:
        base.mkdir(parents=True, exist_ok=True)
        _write(base)
    except OSError as error:
        for path in made:
            with suppress(OSError):  # it was not made, or somebody else has put something in it
                path.rmdir()
        raise ConfigError(f"project {folder!r} cannot be made: {error.strerror}; choose a folder you can write") from error
    if as_json:
        output.write(output.encode({"ok": True, "folder": folder, "files": list(FILES)}))
        return
    output.write(output.show(f"made {', '.join(FILES)} in {folder}\n"
                             f"next: pyproc call --worker {Path(folder) / 'worker.py'} predict '{{\"value\": 42}}'"))


def _write(base: Path) -> None:
    """All files or none: half a project would be in the way of the next try."""
    begun: list[Path] = []
    try:
        for name, text in FILES.items():
            with (base / name).open("x", encoding="utf-8") as file:
                begun.append(base / name)
                file.write(text)
    except BaseException:
        for path in begun:
            path.unlink()
        raise
