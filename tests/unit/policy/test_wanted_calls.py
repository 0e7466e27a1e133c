"""How the calls of a learning run are written, and the file that a proposal becomes."""

from __future__ import annotations

import tomllib

import pytest

from pyproc import Limits, Sandbox
from pyproc.policy.observe import Call
from pyproc.policy.proposal import keys
from pyproc.policy.wanted_calls import CallsError, from_lines, from_words


@pytest.mark.parametrize(("words", "calls"), [
    (["predict"], [Call("predict")]),
    (["predict", '{"value": 42}', "area", "area", "[1]"], [Call("predict", {"value": 42}), Call("area"), Call("area", [1])]),
    (["double", "21", "flag", "true", "text", '"x"'], [Call("double", 21), Call("flag", True), Call("text", "x")]),
])  # fmt: skip
def test_words_are_methods_with_their_bodies(words: list[str], calls: list[Call]) -> None:
    assert from_words(words) == calls


def test_lines_are_calls() -> None:
    assert from_lines('{"method": "a"}\n\n{"method": "b", "body": {"x": 1}}\n') == [Call("a"), Call("b", {"x": 1})]


@pytest.mark.parametrize("words", [["42"], ["a", "1", "2"], []])
def test_a_body_without_a_method_is_refused(words: list[str]) -> None:
    with pytest.raises(CallsError):
        from_words(words)


@pytest.mark.parametrize("text", ["", "a", '{"body": 1}', '{"method": 1}', '{"method": "a", "bdy": 1}', "[]"])
def test_a_line_that_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(CallsError):
        from_lines(text)


@pytest.mark.parametrize("name", ["scoring", "a-b_1", "a.b", 'quo"te', "é"])
def test_the_keys_of_a_proposal_are_read_back(name: str) -> None:
    sandbox = Sandbox("default", read=['/srv/a "b"', "/srv/\x7f\n\\é😀"], scratch="3 MiB", layers={"landlock": "require"})
    limits = Limits(memory="2 GiB", cpu_time="90 s", cpus=1.5, threads=32, file_size=1025)
    read = tomllib.loads(keys(name, sandbox, limits))["pools"][name]
    made, bounds = Sandbox(**read["sandbox"]), Limits(**read["limits"])
    assert all(getattr(made, key) == getattr(sandbox, key) for key in Sandbox.__slots__)
    assert all(getattr(bounds, key) == getattr(limits, key) for key in Limits.__slots__)
