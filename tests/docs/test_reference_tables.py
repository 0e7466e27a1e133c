"""The tables of the reference name what the code has, no more and no less."""

from __future__ import annotations

import re
from collections import Counter
from inspect import signature
from pathlib import Path

import pyproc_worker
from pyproc.attack import corpus
from pyproc.attack.report import VERDICTS
from pyproc.config.model import KEYS, PLAIN
from pyproc.config.options import LAYERS, Limits
from pyproc.pool.options import NAMES
from pyproc.sandbox.plan import FILESYSTEM_WALLS, REQUIRED
from pyproc.supervisor.death import BY_SIGNAL
from pyproc_worker.call import current_call

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
README = Path(__file__).resolve().parents[2] / "README.md"


def rows(page: str, head: str) -> dict[str, list[str]]:
    """Of the table under the header line that begins with `head`: what its first column has in back quotes -> the other columns."""
    lines = (REFERENCE / page).read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(head)) + 2
    found: dict[str, list[str]] = {}
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        name, *rest = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", name) or [name], rest)
    return found


def test_each_layer_has_a_row_with_its_default() -> None:
    table = rows("layers.md", "| layer |")
    assert tuple(table) == LAYERS
    for name, (*_, default) in table.items():
        wanted = "require this or" if name in FILESYSTEM_WALLS else "require" if name in REQUIRED else "prefer"
        assert default.startswith(wanted), name


def test_each_limit_has_a_row_and_its_bounds() -> None:
    assert set(rows("limits.md", "| limit | default")) == set(Limits.__slots__)
    assert set(rows("limits.md", "| limit | possible")) == set(Limits.__slots__)


def test_each_death_reason_has_a_row() -> None:
    table = set(rows("death-reasons.md", "| reason |"))
    assert table >= {*BY_SIGNAL.values(), "oom", "deadline", "cancelled", "process_limit", "output_limit", "protocol", "policy"}


def test_each_class_of_attacks_has_a_row_with_its_count() -> None:
    counts = Counter(attack.kind for attack in corpus.load())
    table = rows("attacks.md", "| class |")
    assert {name: int(cells[0]) for name, cells in table.items()} == {**counts, "all": sum(counts.values())}
    assert tuple(rows("attacks.md", "| verdict |")) == VERDICTS


def test_the_readme_has_the_numbers_of_the_corpus() -> None:
    attacks = corpus.load()
    shown = f"{len(attacks)} attempts to break out in {len({attack.kind for attack in attacks})} classes"
    without = sum(not attack.has_control for attack in attacks)
    text = README.read_text(encoding="utf-8")
    assert shown in text and f"all but {without} of them" in text


def test_each_name_of_a_worker_script_has_a_row() -> None:
    assert set(rows("worker.md", "| name |")) == set(pyproc_worker.__all__)
    assert list(rows("worker.md", "| option |")) == [name for name in signature(pyproc_worker.expose).parameters if name != "fn"]
    assert list(rows("worker.md", "| argument |")) == list(signature(pyproc_worker.run_worker).parameters)
    assert {f"`.{name}`" for name in rows("worker.md", "| attribute of")} == set(re.findall(r"`\.\w+`", current_call.__doc__ or ""))


def test_each_key_of_a_pool_stands_in_the_page_of_the_configuration() -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    assert [key for key in (*PLAIN, *(key for keys in KEYS.values() for key in keys)) if f"`{key}`" not in page] == []
    assert set(rows("pool.md", "| option | type | default | bounds")) == {"script", *NAMES}
