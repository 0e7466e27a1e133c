"""What an exception becomes, however hostile it is."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from pyproc_wire.limits import PUBLIC_TEXT_BYTES, REPORT_BYTES
from pyproc_worker.failure import GENERIC, PublicError, classify


def caught(action: Any) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")

    __repr__ = __str__


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit("no")


class Nameless(Exception, metaclass=Meta):
    pass


class Text(str):
    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        raise SystemExit("no")


class Odd(PublicError):
    def __str__(self) -> str:
        return Text("shown")


@pytest.mark.parametrize("error", [Hostile(), Nameless("x"), Nameless(Hostile())], ids=["str", "name", "both"])
def test_a_hostile_exception_is_still_reported(error: Exception) -> None:
    failure = classify(error)
    assert (failure.code, failure.error) == ("function_failed", GENERIC)
    assert failure.report is not None and failure.report.type == type.__dict__["__name__"].__get__(type(error))


def test_a_hostile_public_error_is_generic() -> None:
    class Both(Hostile, PublicError):
        pass

    assert classify(Both()).error == GENERIC
    assert classify(Odd()).error == "shown"


def test_public_text_is_bounded_and_escaped() -> None:
    text = classify(PublicError("é" * 5000 + "\n")).error
    assert len(text.encode()) <= PUBLIC_TEXT_BYTES
    assert classify(PublicError("a\x1b[2J\r\n\ud800")).error == "a\\x1b[2J\\r\\n\\ud800"


def test_a_report_is_bounded_and_keeps_the_end() -> None:
    report = classify(ValueError("x" * 200_000 + "END")).report
    assert report is not None and len(report.traceback) <= REPORT_BYTES and report.traceback.rstrip().endswith("END")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EPERM])
def test_a_refused_fork_is_told_from_other_refusals(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    # A C function leaves no frame: the innermost one is the script's, as it is here once ours is cut off.
    def fork() -> None:
        os.fork()

    def read() -> None:
        os.read(0, 1)

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(os, "read", refuse)
    for action, bound in ((fork, "processes"), (read, None)):
        error = caught(action)
        step = error.__traceback__
        assert step is not None and step.tb_next is not None
        step.tb_next.tb_next = None
        assert classify(error).bound == bound


def test_the_name_of_fork_alone_proves_nothing() -> None:
    def mixed() -> None:
        if os.getpid() == 0:
            os.fork()
        raise PermissionError(errno.EPERM, "elsewhere")

    assert classify(caught(mixed)).bound is None


def test_a_long_report_keeps_both_ends() -> None:
    def raise_long() -> None:
        raise ValueError("x" * 200_000 + "END")

    report = classify(caught(raise_long)).report
    assert report is not None and len(report.traceback.encode()) <= REPORT_BYTES
    assert report.traceback.startswith("Traceback") and report.traceback.rstrip().endswith("END")


def test_a_report_of_text_that_is_no_unicode_can_be_sent() -> None:
    report = classify(ValueError("\ud800")).report
    assert report is not None and report.traceback.encode()


def test_a_chain_of_many_causes_is_still_one_bounded_report() -> None:
    error = ValueError(0)
    for number in range(1, 300):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    report = classify(error).report
    assert report is not None and len(report.traceback) <= REPORT_BYTES
