"""Each golden vector gives what stands beside it, in one chunk and byte by byte alike."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


play = _load("wire_play")
VALID = play.expectations("valid")
INVALID = play.expectations("invalid")


def _title(value: Any) -> str | None:
    return value["title"] if isinstance(value, dict) else ""


def test_the_files_are_what_the_generator_writes() -> None:
    written = {
        f"{folder}/{path.name}": path.read_bytes() for folder in ("valid", "invalid") for path in (HERE / folder).iterdir()
    }
    assert written == runpy.run_path(str(HERE / "generate.py"))["contents"]()


@pytest.mark.parametrize(("expected", "raw"), VALID, ids=_title)
def test_valid_vector_gives_its_events(expected: dict[str, Any], raw: bytes) -> None:
    events, code = play.outcome(play.opened(expected), [raw])
    assert code is None
    assert len(events) == len(expected["events"])
    for event, wanted in zip(events, expected["events"], strict=True):
        seen = dict(event)
        if "body" in wanted:
            seen["body"] = play.body_of(event["body"], expected.get("codec", "msgpack"))
        assert {name: seen[name] for name in wanted} == wanted


@pytest.mark.parametrize(("expected", "raw"), INVALID, ids=_title)
def test_invalid_vector_is_refused_with_its_code(expected: dict[str, Any], raw: bytes) -> None:
    events, code = play.outcome(play.opened(expected), [raw])
    refused = [event["code"] for event in events if event["event"] == "BadRequest"]
    assert (code or (refused and refused[-1])) == expected["code"]
    if expected["role"] == "caller":
        assert code is not None, "on a worker's channel each breach is fatal"


@pytest.mark.parametrize(("expected", "raw"), VALID + INVALID, ids=_title)
def test_byte_at_a_time_equals_one_chunk(expected: dict[str, Any], raw: bytes) -> None:
    whole = play.outcome(play.opened(expected), [raw])
    single = play.outcome(play.opened(expected), [raw[at : at + 1] for at in range(len(raw))])
    assert single == whole


@pytest.mark.parametrize(("expected", "raw"), VALID, ids=_title)
def test_every_two_chunks_equal_one(expected: dict[str, Any], raw: bytes) -> None:
    whole = play.outcome(play.opened(expected), [raw])
    for cut in range(1, len(raw)):
        assert play.outcome(play.opened(expected), [raw[:cut], raw[cut:]]) == whole
