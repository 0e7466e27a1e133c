"""Carries out a plan in pid 1 of the new namespaces: the order of the layers is the whole content of this file.

Rules: mounts before Landlock (which forbids mount); the bounding set and securebits before the uid; PDEATHSIG after the
last change of credentials, which clears it; NO_NEW_PRIVS before seccomp; seccomp last. Nothing of the user's has run
when this returns, and nothing that runs later can take any of it back. A step that fails raises LayerFailed with the
layer's name: the plan holds only layers that were probed, so a failure is a refusal and never a silent drop. What can be
read back is; the names of the steps that were taken go to the supervisor, who compares them before the script may run.
"""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from pyproc_worker.jail import credentials, landlock, libc, mounts, rlimits, seccomp

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 1, 4, 3, 38, 39
PR_GET_PDEATHSIG, PR_SET_MDWE, PR_GET_MDWE, MDWE_REFUSE_EXEC_GAIN = 2, 65, 66, 1


class LayerFailed(Exception):
    """A layer of the plan could not be applied: `.layer`, `.cause_text`."""

    def __init__(self, layer: str, cause_text: str) -> None:
        super().__init__(f"{layer}: {cause_text}")
        self.layer = layer
        self.cause_text = cause_text


def apply(plan: dict[str, Any]) -> tuple[int, list[str]]:
    """Apply every layer of `plan` to this process: the seccomp listener's descriptor, or 0 without one, and what was done."""
    layers, done = set(plan["layers"]), list[str]()

    def step(layer: str, action: Callable[[], object]) -> None:
        if layer in layers:
            try:
                action()
            except (OSError, ValueError) as error:
                raise LayerFailed(layer, str(error)) from error
            done.append(layer)

    os.umask(0o022)
    step("mount_namespace", lambda: mounts.enter_root(plan))
    os.umask(0o077)
    step("uts_namespace", lambda: socket.sethostname(plan["hostname"]))
    step("rlimits", lambda: rlimits.apply(plan["rlimits"]))
    become = tuple(plan["become"]) if plan["become"] else None
    step("capabilities", lambda: credentials.drop_capabilities(become, bounding=plan["bounding"]))
    step("parent_death", _end_with_the_parent)
    step("dumpable", lambda: _set_and_check(PR_SET_DUMPABLE, 0, PR_GET_DUMPABLE))
    step("no_new_privs", lambda: _set_and_check(PR_SET_NO_NEW_PRIVS, 1, PR_GET_NO_NEW_PRIVS))
    step("landlock", lambda: landlock.restrict(plan["landlock"]["abi"], [tuple(r) for r in plan["landlock"]["rules"]]))
    step("mdwe", lambda: _set_and_check(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, PR_GET_MDWE))
    listener = 0

    def load() -> None:
        nonlocal listener
        listener = seccomp.load(base64.b64decode(plan["seccomp"]["zygote"]), listener=True)

    step("seccomp", load)
    return listener, done


def _end_with_the_parent() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    read = ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.addressof(read))
    if read.value != signal.SIGKILL:
        raise OSError(1, f"PR_SET_PDEATHSIG did not take, it is {read.value}")


def _set_and_check(setter: int, value: int, getter: int) -> None:
    libc.prctl(setter, value)
    if libc.prctl(getter) != value:
        raise OSError(1, f"prctl {setter} did not take {value}")
