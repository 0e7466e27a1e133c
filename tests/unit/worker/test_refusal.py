"""What is read off an exception: the first refusal of its chain, who asked, and nothing that the exception's own code says."""

from __future__ import annotations

import errno
import os
import platform
import socket
from collections.abc import Callable
from typing import Any

import pytest

from pyproc.sandbox.acts import ASKED, ASKED_CALLS, KINDS
from pyproc.sandbox.rules import syscall_table
from pyproc_wire.limits import ASKED_CHARS, REFUSED_PATH_BYTES
from pyproc_wire.messages import Refused
from pyproc_worker.refusal import CALLABLES, CHAIN_MAX, refused_of


def caught(action: Callable[[], Any]) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def wrap(error: BaseException, *, cause: bool) -> BaseException:
    def action() -> None:
        try:
            raise error
        except BaseException as inner:
            if cause:
                raise ValueError("told otherwise") from inner
            raise ValueError("told otherwise")  # noqa: B904 - the context is what is tested

    return caught(action)


MISSING = "/no such file here"


@pytest.mark.parametrize(("action", "refused"), [
    (lambda: open(MISSING), Refused(errno.ENOENT, MISSING, "open")),
    (lambda: open(os.fsencode(MISSING)), Refused(errno.ENOENT, MISSING, "open")),
    (lambda: os.listdir(MISSING), Refused(errno.ENOENT, MISSING, "listdir")),
    (lambda: os.unlink(MISSING), Refused(errno.ENOENT, MISSING, "unlink")),
    (lambda: socket.socket(socket.AF_UNIX).connect(MISSING), Refused(errno.ENOENT, None, "connect")),
    (lambda: __import__("no_such_module"), Refused(errno.ENOENT, "no_such_module", "import")),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_refusal_tells_errno_path_and_who_asked(action: Callable[[], Any], refused: Refused) -> None:
    assert refused_of(caught(action)) == refused


@pytest.mark.parametrize("cause", [True, False])
def test_a_refusal_is_found_below_what_wraps_it(cause: bool) -> None:
    refused = refused_of(wrap(wrap(PermissionError(1, "no", "/srv/x"), cause=cause), cause=cause))
    assert refused is not None and (refused.errno, refused.path) == (1, "/srv/x")


def test_a_chain_is_searched_to_its_bound_and_a_circle_ends() -> None:
    deep: BaseException = PermissionError(1, "no", "/srv/x")
    for _ in range(2 * CHAIN_MAX):
        deep = wrap(deep, cause=True)
    assert refused_of(deep) is None
    one, other = ValueError(), ValueError()
    one.__context__, other.__context__ = other, one
    assert refused_of(one) is None


@pytest.mark.parametrize("error", [
    ValueError("x"), OSError("no errno"), OSError(errno.EIO, "of the device"), OSError(errno.EEXIST, "x", "/x"), KeyboardInterrupt(),
])  # fmt: skip
def test_what_is_no_refusal_is_none(error: BaseException) -> None:
    assert refused_of(error) is None


def test_texts_are_bounded_and_the_exceptions_code_is_not_asked() -> None:
    class Hostile(PermissionError):
        errno = property(lambda self: 1 / 0)
        filename = property(lambda self: 1 / 0)

        def __getattribute__(self, name: str) -> Any:
            raise SystemExit("no")

    assert refused_of(Hostile(13, "x", "/srv/x")) == Refused(13, "/srv/x", None)
    long = refused_of(PermissionError(13, "x", "é" * 10_000 + "\ud800"))
    assert long is not None and long.path is not None and len(long.path.encode()) <= REFUSED_PATH_BYTES


def test_a_text_that_is_a_callables_name_is_no_asker() -> None:
    def action() -> None:
        print("fork", open(MISSING))

    refused = refused_of(caught(action))
    assert refused is not None and refused.asked == "open"


def test_each_callable_is_explained_as_an_act_or_a_system_call() -> None:
    table = syscall_table(platform.machine()) | dict.fromkeys(syscall_table("x86_64"), 0)
    assert [name for name in CALLABLES if name not in ASKED and ASKED_CALLS.get(name, name) not in table] == []
    assert all(len(name) <= ASKED_CHARS and name.isidentifier() for name in CALLABLES)
    assert {kind for kinds in ASKED.values() for kind in kinds} <= set(KINDS)
