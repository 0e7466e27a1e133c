"""Start a program with exactly the descriptors and the environment that it is given (posix_spawn, so threads are safe).

Rules: no preexec function and no fork in the host application, which may have threads. Descriptors 0, 1 and 2 are always
ours to choose: /dev/null where none is named. Signals are at their defaults and none is blocked, whatever the host did.
Descriptors of the host that are inheritable still arrive; the program closes all but its own first (close_range).
Works where the host ignores SIGCHLD or reaps with waitpid(-1): nothing here relies on being the one who waits.

posix_spawn answers with a number. Between it and the pidfd the child could end, be reaped by the host's own waitpid(-1), and
the number could come round the whole pid space; that the holder is a child of ours is therefore checked after opening it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Mapping

from pyproc.host import libc, pidfd, procfs

STANDARD = (0, 1, 2)


def spawn(argv: list[str], *, env: Mapping[str, str], fds: Mapping[int, int]) -> tuple[int, int]:
    """Run argv[0] in a session of its own with `fds` (target -> source). Returns (pid, pidfd). Raises OSError."""
    above = max((*STANDARD, *fds)) + 1  # copies above every target: none is overwritten before it is used
    copies: dict[int, int] = {}
    try:
        for target, source in fds.items():
            copies[target] = libc.kernel.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above)
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, target, os.devnull, os.O_RDWR, 0) for target in STANDARD if target not in fds]
        actions += [(os.POSIX_SPAWN_DUP2, copy, target) for target, copy in copies.items()]
        return _hold(_start(argv, env, actions))
    finally:
        for copy in copies.values():
            libc.kernel.close(copy)


def reap(pid: int, held: int | None = None) -> int | None:
    """Collect an ended child if nobody has; never waits. Its wait status, or None.

    With `held`, its pidfd, a number that the host reaped and gave to another child is not touched.
    """
    try:
        if held is None:
            found, status = libc.kernel.waitpid(pid, os.WNOHANG)
            return status if found == pid else None
        told = libc.kernel.waitid(pidfd.P_PIDFD, held, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if told is None else pidfd.wait_status(told.si_code, told.si_status)


def _start(argv: list[str], env: Mapping[str, str],
           actions: list[tuple[int, ...] | tuple[int, int, str, int, int]]) -> int:
    defaults = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    try:
        return libc.kernel.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=[],
                                       setsigdef=defaults)
    except NotImplementedError:  # a CPython built against a C library without POSIX_SPAWN_SETSID: a group must do
        return libc.kernel.posix_spawn(argv[0], argv, env, file_actions=actions, setpgroup=0, setsigmask=[],
                                       setsigdef=defaults)


def _hold(pid: int) -> tuple[int, int]:
    try:
        held = pidfd.open(pid)
    except ProcessLookupError as error:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} ended as soon as it was started") from error
    except OSError:  # no descriptor left: what cannot be held must not run
        libc.kernel.kill(pid, signal.SIGKILL)
        reap(pid)
        raise
    try:
        if procfs.stat(pid).parent != os.getpid():
            raise procfs.GoneError(errno.ESRCH, f"process {pid} ended as soon as it was started")
    except BaseException:
        libc.kernel.close(held)
        raise
    return pid, held
