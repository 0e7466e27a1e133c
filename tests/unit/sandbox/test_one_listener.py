"""What ADR 0009 rests on, asked of the kernel: one listener in a chain of filters, and ERRNO before USER_NOTIF."""

from __future__ import annotations

import errno
import os
import platform

import pytest

from pyproc.sandbox.rules import ALLOW, ERRNO, NOTIFY, Profile, Rule, syscall_table
from pyproc.sandbox.seccomp import compile_profile
from pyproc_worker.jail import libc, seccomp


def filter_that(action: int) -> bytes:
    """Of a profile that answers `action` to getppid and allows all else."""
    machine = platform.machine()
    return compile_profile(Profile(machine, ALLOW, (Rule("getppid", syscall_table(machine)["getppid"], action),)))


def in_a_child(first: int, second: int, *, listen_again: bool) -> int:
    """Load two filters, the first with a listener, then ask for the parent's pid: the errno of the first refusal."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            libc.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
            seccomp.load(filter_that(first), listener=True)
            seccomp.load(filter_that(second), listener=listen_again)
            libc.NUMBERS["getppid"] = syscall_table(platform.machine())["getppid"]
            libc.call("getppid")
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_task_has_one_listener() -> None:
    assert in_a_child(ALLOW, NOTIFY, listen_again=True) == errno.EBUSY


@pytest.mark.parametrize(("first", "second"), [(ERRNO | errno.EDOM, NOTIFY), (NOTIFY, ERRNO | errno.EDOM)])
def test_an_errno_of_any_filter_is_answered_before_anybody_is_asked(first: int, second: int) -> None:
    assert in_a_child(first, second, listen_again=False) == errno.EDOM
