"""The demo's tour of refusals says in each row what a reader is to learn from it."""

from __future__ import annotations

import io
import logging
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pyproc import Limits, Pool

SAYS = {
    "read /etc/passwd": ("FunctionFailed", "by mount_namespace|by landlock"), "open a socket": ("FunctionFailed", "by seccomp"),
    "crash": ("WorkerLost", "signal:SIGABRT"), "raise a secret": ("FunctionFailed", "the secret, here only"),
}


@pytest.fixture(scope="module")
def demo() -> Any:
    """Imported by its test alone: scikit-learn takes 2 s, in each process that only collects this file."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (requirements/demo.txt)")
    return pytest.importorskip("demo", reason="rich is not installed (requirements/demo.txt)")


@pytest.fixture
def causes(demo: Any) -> Iterator[list[str]]:
    log = logging.getLogger("pyproc")
    before, propagate = list(log.handlers), log.propagate
    yield demo.collect_causes()
    log.handlers[:], log.propagate = before, propagate


def test_each_row_of_the_tour_is_whole(demo: Any, causes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ATTEMPTS", [attempt for attempt in demo.ATTEMPTS if attempt[0] in SAYS])
    script = pathlib.Path(demo.__file__).with_name("digits_worker.py")
    console = pytest.importorskip("rich.console", reason="rich is not installed (requirements/demo.txt)")
    screen = io.StringIO()
    scan = demo.load_digits().data[0].tolist()
    with Pool(script, limits=Limits(memory="512 MiB"), timeout=20.0) as pool:
        known = pool.call("classify", scan)
        assert demo.attempts(console.Console(file=screen, width=80), pool, causes, scan, known) == (len(SAYS), len(SAYS))
    rows = [line.strip() for line in screen.getvalue().splitlines()]
    for title, (caught, says) in SAYS.items():
        assert [row for row in rows if re.fullmatch(rf"{title} +{caught} +({says}) +answered", row)], screen.getvalue()


@pytest.mark.parametrize(("options", "marks"), [
    ({"force_terminal": True, "color_system": "truecolor"}, "48;2;"), ({"force_terminal": True, "no_color": True}, "░"), ({}, "░"),
])  # fmt: skip
@pytest.mark.parametrize("width", [50, 80])
def test_scans_are_seen_on_every_screen_and_fit_into_it(demo: Any, options: dict[str, object], marks: str, width: int) -> None:
    console = pytest.importorskip("rich.console", reason="rich is not installed (requirements/demo.txt)")
    digits, screen = demo.load_digits(), io.StringIO()
    answers = [*digits.target[:8], *(digits.target[8:16] + 1)]
    terminal = console.Console(file=screen, width=width, **options)
    terminal.print(demo.picture(terminal, digits.images[:16], answers, list(digits.target[:16])))
    assert marks in screen.getvalue()
    assert screen.getvalue().count("right") == width // demo.SCAN_COLUMNS
    lines = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).splitlines()
    assert max(len(line) for line in lines) <= width and len(lines) < 30
