"""Why a worker died, by kernel evidence: the wait status, the cgroup's OOM counter, our own kill. Pure.

| evidence | reason |
|---|---|
| status SIGKILL, or none that the kernel tells (before Linux 6.15), and the group's oom_kill counter rose | oom |
| status SIGKILL and we sent it | what for: deadline, cancelled, output_limit, process_limit, protocol, policy, … |
| status SIGKILL otherwise | signal:SIGKILL |
| status SIGXCPU, SIGXFSZ, SIGSYS | cpu_limit, file_size, seccomp |
| another signal, or an exit code | signal:NAME, exit:N |
| no status (Linux before 6.15, where somebody else reaped it) | oom by the counter, what we sent a SIGKILL for, else exit:unknown |

The exit status beats intention: a worker that crashed just before our signal arrived died of its crash.
"""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

BY_SIGNAL: dict[int, str] = {signal.SIGXCPU: "cpu_limit", signal.SIGXFSZ: "file_size", signal.SIGSYS: "seccomp"}


class Death(NamedTuple):
    """`reason` of contract section 4; `evidence` for the log."""

    reason: str
    evidence: str


def explain(status: int | None, sent_for: str | None, *, oom: bool) -> Death:
    """The death for a wait status (None: the kernel did not tell), our own kill's reason and the OOM counter."""
    if status is None:
        return Death("oom" if oom else sent_for or "exit:unknown", "the kernel told no exit status")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"SIG{number}"
        if number == signal.SIGKILL:
            if oom:
                return Death("oom", "SIGKILL, and the memory group counts an OOM kill")
            if sent_for is not None:
                return Death(sent_for, "SIGKILL, sent by the supervisor")
            return Death("signal:SIGKILL", "SIGKILL, sent by another process")
        return Death(BY_SIGNAL.get(number, f"signal:{name}"), name)
    return Death(f"exit:{os.WEXITSTATUS(status)}", f"exit status {os.WEXITSTATUS(status)}")
