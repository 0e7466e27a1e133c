"""Every snippet of the README and of docs/ is run.

A Python block whose first line is `# NAME.py` is written to that file; any other Python block is run, in order, in the
folder that holds those files, with the installed package. What stands behind `# ` at the end of a line with `print(` is
what it must print. A `console` block is run line by line (`$ command`), and the lines below a command are what it must
print; `…` in such a line stands for anything. A block in another language is not run and not a promise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w.]+\.(?:py|toml))\n")
PRINTED = re.compile(r"print\(.*\)\s+# (.+)$", re.MULTILINE)
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run(command: list[str] | str, folder: Path) -> str:
    """Run in a folder; what it prints. The test fails if the program does."""
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=folder, env=variables, shell=isinstance(command, str), capture_output=True, text=True, timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"{command!r} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check_console(text: str, folder: Path) -> None:
    """Run each command and compare what it prints with the lines below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        pattern = re.escape(wanted.strip()).replace("…", ".*")
        printed = run(command, folder).strip()
        assert not wanted.strip() or re.fullmatch(pattern, printed, re.DOTALL), f"$ {command}\n{printed}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: str(page.relative_to(TOP)))
def test_snippets_do_what_they_say(page: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for number, (language, text) in enumerate(blocks(page)):
        if language == "console":
            check_console(text, tmp_path)
        elif name := FILE_NAME.match(text):
            (tmp_path / name.group(1)).write_text(text, encoding="utf-8")
        else:
            script = tmp_path / f"snippet_{number}.py"
            script.write_text(text, encoding="utf-8")
            printed = run([sys.executable, str(script)], tmp_path)
            for wanted in PRINTED.findall(text):
                assert wanted in printed.splitlines(), f"{page.name} promises {wanted!r}, printed was {printed!r}"


def test_links_between_pages_lead_somewhere() -> None:
    dead = []
    for page in [*PAGES, *sorted(TOP.glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(TOP)} -> {target}")
    assert dead == []
