"""What a zygote may say: every kind of message in every phase, in pieces and at the bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyproc.supervisor.dialogue import (
    MESSAGE_BYTES,
    REASON_CHARS,
    Applied,
    Breach,
    Dialogue,
    ForkFailed,
    LayerRefused,
    Loaded,
    Message,
    Offered,
    Phase,
    ScriptFailed,
)
from pyproc_wire.messages import Refused

APPLIED: dict[str, Any] = {"applied": ["mdwe"]}
LISTENER: dict[str, Any] = {"listener": 5}
LOADED: dict[str, Any] = {"loaded": True}
LAYER: dict[str, Any] = {"failed": {"layer": "landlock", "text": "no"}}
SCRIPT: dict[str, Any] = {"failed": {"text": "Traceback\nValueError: x\n", "refused": None}}
FORK: dict[str, Any] = {"fork_failed": 11}
BEFORE: dict[Phase, list[dict[str, Any]]] = {
    Phase.BOOTING: [], Phase.CONFINED: [APPLIED], Phase.LOADING: [APPLIED, LISTENER], Phase.SERVING: [APPLIED, LISTENER, LOADED]}
PERMITTED: dict[Phase, list[tuple[dict[str, Any], Message, Phase]]] = {
    Phase.BOOTING: [(APPLIED, Applied(frozenset({"mdwe"})), Phase.CONFINED), ({"applied": []}, Applied(frozenset()), Phase.CONFINED),
                    (LAYER, LayerRefused("landlock", "no"), Phase.BOOTING)],
    Phase.CONFINED: [(LISTENER, Offered(5), Phase.LOADING), ({"listener": 0}, Offered(0), Phase.LOADING)],
    Phase.LOADING: [(LOADED, Loaded(), Phase.SERVING),
                    (SCRIPT, ScriptFailed("Traceback\nValueError: x\n", "ValueError: x"), Phase.LOADING)],
    Phase.SERVING: [(FORK, ForkFailed(11), Phase.SERVING)],
}
SAYINGS = [APPLIED, {"applied": "mdwe"}, {"applied": [1]}, {"applied": {}}, LISTENER,
           {"listener": -1}, {"listener": True}, {"listener": 1 << 40}, {"listener": "5"}, LOADED, {"loaded": 1},
           {"loaded": False}, LAYER, SCRIPT, {"failed": "x"}, {"failed": {"text": "E"}}, {"failed": {"text": 1, "refused": None}},
           {"failed": {"layer": "seccomp", "text": "no", "more": 1}}, FORK, {"fork_failed": "11"}, {"fork_failed": 1 << 20}, {},
           {"unknown": 1}, {**LISTENER, **LOADED}]


def framed(message: object) -> bytes:
    payload = json.dumps(message).encode()
    return len(payload).to_bytes(4, "big") + payload


def at(phase: Phase) -> Dialogue:
    dialogue = Dialogue()
    for message in BEFORE[phase]:
        dialogue.receive(framed(message))
    assert dialogue.phase is phase
    return dialogue


@pytest.mark.parametrize("phase", Phase)
def test_what_is_permitted_is_understood_and_leads_on(phase: Phase) -> None:
    for said, meant, after in PERMITTED[phase]:
        dialogue = at(phase)
        assert dialogue.receive(framed(said)) == [meant]
        assert dialogue.phase is after


@pytest.mark.parametrize("phase", Phase)
def test_everything_else_is_a_breach(phase: Phase) -> None:
    permitted = [said for said, _, _ in PERMITTED[phase]]
    refused = [said for said in SAYINGS if said not in permitted]
    assert len(refused) >= 12
    for said in refused:
        with pytest.raises(Breach):
            at(phase).receive(framed(said))


@pytest.mark.parametrize("payload", [b"", b"[1]", b"1", b"null", b'"listener"', b"{", b"\x80\x04\x95", b"[" * 100_000])
def test_what_is_no_object_is_a_breach(payload: bytes) -> None:
    with pytest.raises(Breach, match="not a JSON object"):
        Dialogue().receive(len(payload).to_bytes(4, "big") + payload)


def test_messages_come_byte_by_byte_and_together() -> None:
    stream = framed(APPLIED) + framed(LISTENER) + framed(LOADED) + framed(FORK)
    meant = [Applied(frozenset({"mdwe"})), Offered(5), Loaded(), ForkFailed(11)]
    slow = Dialogue()
    assert [message for at in range(len(stream)) for message in slow.receive(stream[at : at + 1])] == meant
    assert Dialogue().receive(stream) == meant


def test_a_breach_keeps_what_was_said_before_it() -> None:
    with pytest.raises(Breach) as caught:
        Dialogue().receive(framed(APPLIED) + framed(LISTENER) + framed(LOADED) + framed(LOADED))
    assert caught.value.before == (Applied(frozenset({"mdwe"})), Offered(5), Loaded())


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    Dialogue().receive(MESSAGE_BYTES.to_bytes(4, "big"))
    with pytest.raises(Breach, match="limit is"):
        Dialogue().receive((MESSAGE_BYTES + 1).to_bytes(4, "big"))


def test_texts_are_cut_and_one_line() -> None:
    [layer] = at(Phase.BOOTING).receive(framed({"failed": {"layer": "mdwe", "text": "\n" + "y" * 9000}}))
    assert isinstance(layer, LayerRefused) and len(layer.text) == REASON_CHARS and layer.text.isprintable()
    [script] = at(Phase.LOADING).receive(framed({"failed": {"text": "a\n\r\x1b" + "y" * 9000, "refused": None}}))
    assert isinstance(script, ScriptFailed) and len(script.last) == REASON_CHARS and script.last.isprintable()


@pytest.mark.parametrize("layer", ["x" * 9000, "", "kernel", "pid/", "landlock/pid", "mdwe\n"])
def test_a_layer_that_is_none_is_a_breach(layer: str) -> None:
    with pytest.raises(Breach):
        at(Phase.BOOTING).receive(framed({"failed": {"layer": layer, "text": "no"}}))


def test_namespaces_that_are_made_by_one_call_are_named_together() -> None:
    assert at(Phase.BOOTING).receive(framed({"failed": {"layer": "pid/network/mount", "text": "no"}})) == [
        LayerRefused("pid/network/mount", "no")]


@pytest.mark.parametrize(("told", "found"), [
    ([2, "/srv/x", "open"], Refused(2, "/srv/x", "open")), ([1, None, None], Refused(1)), (None, None), ([], None),
    ([0, None, None], None), ([4096, None, None], None), ([2, "x" * 4097, None], None), ([2, None, "not a name"], None),
    ([2, "/x", "open", 1], None), ("x", None), ({"errno": 2}, None), ([True, None, None], None),
])  # fmt: skip
def test_what_a_script_was_refused_is_bounded_and_no_breach(told: object, found: Refused | None) -> None:
    assert at(Phase.LOADING).receive(framed({"failed": {"text": "E", "refused": told}})) == [ScriptFailed("E", "E", found)]
