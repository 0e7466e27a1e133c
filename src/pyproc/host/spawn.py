"""Start a program with exactly the descriptors and the environment that it is given (posix_spawn, so threads are safe).

No preexec function and no fork in the host application, which may have threads. Works where the host ignores SIGCHLD or
reaps with waitpid(-1): nothing here relies on being the one who waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

ABOVE = 64  # copies are made above every target number, so that none is overwritten before it is used


def spawn(argv: list[str], *, env: dict[str, str], fds: dict[int, int]) -> tuple[int, int]:
    """Run argv[0] with `fds` (target -> source). Returns (pid, pidfd). Raises OSError."""
    copies = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, ABOVE) for target, source in fds.items()}
    try:
        actions = [(os.POSIX_SPAWN_DUP2, copy, target) for target, copy in copies.items()]
        pid = os.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=[],
                             setsigdef=[s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)])
        return pid, os.pidfd_open(pid)
    finally:
        for copy in copies.values():
            os.close(copy)


def reap(pid: int) -> None:
    """Collect an ended child if nobody has; never waits."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
