"""Why a worker died: each row of evidence and the reason that it is."""

from __future__ import annotations

import signal

import pytest

from pyproc.supervisor.death import explain

CORE = 0x80
ROWS = [  # wait status, what our own kill was for, the group counts an OOM kill -> reason
    (0, None, False, "exit:0"),
    (3 << 8, None, False, "exit:3"),
    (255 << 8, "deadline", False, "exit:255"),
    (1 << 8, None, True, "exit:1"),
    (signal.SIGKILL, None, False, "signal:SIGKILL"),
    (signal.SIGKILL, "deadline", False, "deadline"),
    (signal.SIGKILL, "output_limit", False, "output_limit"),
    (signal.SIGKILL, None, True, "oom"),
    (signal.SIGKILL, "deadline", True, "oom"),
    (signal.SIGSEGV | CORE, None, False, "signal:SIGSEGV"),
    (signal.SIGSEGV, "cancelled", False, "signal:SIGSEGV"),
    (signal.SIGXCPU, None, False, "cpu_limit"),
    (signal.SIGXFSZ | CORE, None, False, "file_size"),
    (signal.SIGSYS | CORE, None, False, "seccomp"),
    (40, None, False, "signal:SIG40"),
    (None, None, False, "exit:unknown"),
    (None, None, True, "oom"),
    (None, "retired", False, "retired"),
    (None, "protocol", True, "oom"),
]


@pytest.mark.parametrize(("status", "sent_for", "oom", "reason"), ROWS)
def test_evidence_gives_one_reason(status: int | None, sent_for: str | None, oom: bool, reason: str) -> None:
    death = explain(status, sent_for, oom=oom)
    assert death.reason == reason
    assert death.evidence
