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
