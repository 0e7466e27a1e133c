"""How a question is written, and what is none."""

from __future__ import annotations

import pytest

from pyproc.policy.question import Question, QuestionError, read
from pyproc.sandbox.acts import KINDS, WORDS, Act, SystemCall, said
from pyproc.sandbox.rules import U64


@pytest.mark.parametrize(("words", "act"), [
    (["open", "/srv/x"], Act("open", "/srv/x")),
    (["open", "/with space/x"], Act("open", "/with space/x")),
    (["list", "/srv"], Act("list", "/srv")),
    (["exec", "/bin/sh"], Act("exec", "/bin/sh")),
    (["connect", "db:5432"], Act("connect", host="db", port=5432)),
    (["connect", "[::1]:80"], Act("connect", host="::1", port=80)),
    (["connect", "/run/db.sock"], Act("connect", "/run/db.sock")),
    (["listen", "8080"], Act("listen", host="0.0.0.0", port=8080)),
    (["fork"], Act("fork")),
    (["call", "getpid"], Act("call", call=SystemCall(("getpid",)))),
    (["call", "socket", "2", "0x80001"], Act("call", call=SystemCall(("socket",), (2, 0x80001)))),
    (["call", "prctl", "0=4", "2=-1"], Act("call", call=SystemCall(("prctl",), (4, 0, U64)))),
    (["may scoring open /srv/x?"], Act("open", "/srv/x")),
    (["May a.b open /srv/my models for reading"], Act("open", "/srv/my models")),
    (["may scoring open /srv/x for writing?"], Act("write", "/srv/x")),
    (["can scoring write to '/srv/x'?"], Act("write", "/srv/x")),
    (["may scoring read /srv/x?"], Act("open", "/srv/x")),
    (["may scoring run /bin/sh?"], Act("exec", "/bin/sh")),
    (["may scoring connect to 10.0.0.1:80?"], Act("connect", host="10.0.0.1", port=80)),
    (["may scoring listen on 80?"], Act("listen", host="0.0.0.0", port=80)),
    (["may scoring start a thread?"], Act("thread")),
    (["may scoring fork?"], Act("fork")),
    (["may scoring call ptrace?"], Act("call", call=SystemCall(("ptrace",)))),
])  # fmt: skip
def test_a_question_is_an_act(words: list[str], act: Act) -> None:
    asked = read(words)
    assert asked.act == act
    assert asked.pool == (words[0].split()[1] if len(words) == 1 and " " in words[0] else None)


def test_write_is_an_option_of_open() -> None:
    assert read(["open", "/srv/x"], write=True) == Question(Act("write", "/srv/x"))
    with pytest.raises(QuestionError, match="--write belongs to open"):
        read(["list", "/srv"], write=True)


@pytest.mark.parametrize("words", [
    ["open"], ["open", "a/b"], ["open", "/a", "/b"], ["opne", "/a"], ["connect", "db"], ["connect", ":80"], ["connect", "db:0"],
    ["listen", "65536"], ["call"], ["call", "no_such"], ["call", "prctl", "6=1"], ["call", "prctl", "x"], ["call", "prctl", *"1234567"],
    ["fork", "now"], ["may scoring?"], ["may scoring eat /srv?"], ["what is it?"], [""],
])  # fmt: skip
def test_what_is_no_question_is_told_what_is(words: list[str]) -> None:
    with pytest.raises(QuestionError, match=r"possible are|write"):
        read(words)


def test_each_act_is_said_in_words() -> None:
    assert set(WORDS) == set(KINDS)
    assert said(Act("call", call=SystemCall(("socket",), (2, 0x80001)))) == "system call socket(2, 0x80001)"
