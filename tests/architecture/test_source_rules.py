"""Rules of the source that no linter knows, read from the syntax trees and from the tracked files.

* The trusted side never builds code from bytes: no pickle and its kin, no eval, exec or compile, no import by a name that
  was computed (`importlib.import_module(name)` with a variable; a fixed text is allowed). One module writes pickles, for the
  sandbox, and uses nothing of cloudpickle that could read one.
* Every module of ours opens with a docstring: its rules and reasons.
* No file names a path of the machine it was written on, or a package registry's address.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SOURCE = TOP / "src"
BUILDERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "yaml", "dill", "cloudpickle", "joblib", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
WRITTEN_ELSEWHERE = {".venv", ".venvs", ".cache", "dist", ".git", ".hypothesis"}  # without git: what make writes
BARE_NAMES = re.compile(
    r"pypi\.(?:org|python)|files\.python" + r"hosted|registry\.npm" + r"js|deb\.debian|proxy\.go" + r"lang"
    r"|--(?:extra-)?index-" + r"url[ =]http|/root/\.py" + r"env|/(?:home|Users)/[a-z]+/(?!\.\.\.)|/work/(?:main|shared)"
)


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((SOURCE / package).rglob("*.py"))]


def forbidden(path: Path, tree: ast.Module) -> Iterator[str]:
    """Each way in which this module could turn bytes into code."""
    for node in ast.walk(tree):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (f"{where} imports {a.name}" for a in node.names if a.name.partition(".")[0] in BUILDERS)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in BUILDERS:
            yield f"{where} imports from {node.module}"
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                yield f"{where} calls {called.id}()"
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            fixed = node.args and isinstance(node.args[0], ast.Constant)
            if name == "import_module" and not fixed:
                yield f"{where} calls {name}() with a computed name"


TRUSTED = modules("pyproc", "pyproc_wire")
ALLOWED = {  # place: (what, why)
    "cli/main.py": ("with a computed name", "verbs are loaded lazily by names out of a closed table in the same module"),
    "attack/corpus.py": ("calls compile()", "checks the syntax of each attack and does not run it"),
    "pool/pickling.py": ("imports cloudpickle", "writes pickles for the sandbox; WRITES is all that it may use"),
    "attack/runner_worker.py": ("calls", "a worker script, run inside the sandbox: attacks are code"),
}


WRITES = {"Pickler", "list_registry_pickle_by_value", "register_pickle_by_value", "unregister_pickle_by_value"}


def used_of(package: str, tree: ast.Module) -> set[str]:
    """What a module uses of a package that it imports as a whole: attribute names, and the bare name where it goes elsewhere."""
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == package]
    whole = {package for node in names if id(node) not in owners}
    return whole | {node.attr for node in ast.walk(tree)
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == package}


def test_what_writes_pickles_for_the_sandbox_can_read_none() -> None:
    tree = ast.parse((SOURCE / "pyproc/pool/pickling.py").read_text(encoding="utf-8"))
    assert used_of("cloudpickle", tree) == WRITES
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert [alias.asname for node in imports for alias in node.names] == [None] * sum(len(node.names) for node in imports)


@pytest.mark.parametrize(
    "code", ["import cloudpickle\ncloudpickle.loads(x)", "import cloudpickle\nread = cloudpickle", "import cloudpickle\nf(cloudpickle)"]
)
def test_the_narrow_rule_finds_what_reads(code: str) -> None:
    assert used_of("cloudpickle", ast.parse(code)) - WRITES


def excused(path: Path, line: str) -> bool:
    return ALLOWED.get("/".join(path.parts[-2:]), ("\0", ""))[0] in line


@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the source tree")
@pytest.mark.parametrize("path", TRUSTED, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_trusted_side_builds_no_code_from_bytes(path: Path) -> None:
    found = forbidden(path, ast.parse(path.read_text(encoding="utf-8")))
    assert [line for line in found if not excused(path, line)] == []


@pytest.mark.parametrize("place", ALLOWED)
def test_an_exception_is_still_needed(place: str) -> None:
    path = SOURCE / "pyproc" / place
    assert any(excused(path, line) for line in forbidden(path, ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from marshal import loads", "eval(x)", "exec(x)", "__import__(x)", "importlib.import_module(name)",
     "from importlib import import_module\nimport_module(name)", "import yaml.loader"],
)
def test_the_rule_finds_what_it_forbids(code: str) -> None:
    assert list(forbidden(Path("sample.py"), ast.parse(code)))


@pytest.mark.parametrize("path", modules("pyproc", "pyproc_worker", "pyproc_wire"), ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_opens_with_its_rules(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{path.relative_to(TOP)} has no docstring at its top"


def tracked() -> list[Path]:
    """The files of the project: what git tracks or would track; without git everything that make does not write."""
    if shutil.which("git") and (TOP / ".git").exists():
        listing = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=TOP, capture_output=True, timeout=30, check=False,
        )
        if listing.returncode == 0:
            return [TOP / name for name in listing.stdout.decode().split("\0") if name]
    everything = (path for path in TOP.rglob("*") if not WRITTEN_ELSEWHERE & set(path.relative_to(TOP).parts))
    return [path for path in everything if path.is_file() and "cache" not in path.parent.name]


def test_no_file_names_this_machine_or_a_registry() -> None:
    found: list[str] = []
    for path in tracked():
        if path.is_file() and path.suffix != ".bin":
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if match := BARE_NAMES.search(line):
                    found.append(f"{path.relative_to(TOP)}:{number}: {match.group()}")
    assert found == []
