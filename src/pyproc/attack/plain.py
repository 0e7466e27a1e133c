"""A process of a plain uid without any sandbox: where controls and the victim run.

    parent (any uid) --stdin: one JSON order--> interpreter: load, drop to the uid, (namespaces), run --stdout--> answer

Rules and reasons:
* Never as root of the host: a control that works would then work on the machine. Started by root, the process drops
  to `uid` before the attack; everything the attack imports is loaded before that, since the interpreter's files may
  lie under root's home.
* A change of uid makes a process undumpable, which would stop attacks for a reason that is not the sandbox: the
  flag is set again.
* In a fresh user namespace the attack is the third process of a fresh pid namespace: pid 1 and a sibling are there
  to be attacked.
* `python -I -B` and a given environment: the caller's settings do not change the outcome.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, Final

PLAIN_UID: Final = 41234  # unused on ordinary machines; not 65534, which stands for every unmapped uid
CONTROL_SECONDS: Final = 20.0  # a control is bounded in count; this only ends one that hangs

LAUNCHER: Final = r"""
import json, os, sys
order = json.loads(sys.stdin.readline())
space = {"T": order["targets"]}
exec(compile(order["code"], "<attack>", "exec"), space)
libc, struct, signal = space["libc"], space["struct"], space["signal"]
uid = order["uid"]
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
if os.getuid() == 0 or os.geteuid() == 0:
    raise SystemExit("still root")
libc.prctl(4, 1, 0, 0, 0)

def become_root_of_a_namespace():
    if libc.unshare(0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000):
        raise SystemExit("no user namespace: errno %d" % space["ctypes"].get_errno())
    for name, text in (("setgroups", "deny"), ("gid_map", "0 %d 1" % uid), ("uid_map", "0 %d 1" % uid)):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
    libc.mount(b"none", b"/", None, 0x44000, None)

def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def attempt():
    try:
        answer = str(space["attack"](order["targets"]))
    except BaseException as error:
        answer = "stopped: %s: %s" % (type(error).__name__, error)
    os.write(1, answer.encode("utf-8", "replace"))
    os._exit(0)

os.chdir(order["directory"])
if order["namespace"]:
    become_root_of_a_namespace()
    first = os.fork()
    if first:
        os._exit(wait(first))
    sibling = os.fork()
    if not sibling:
        signal.pause()
        os._exit(0)
    child = os.fork()
    if not child:
        attempt()
    os._exit(wait(child) & 255)
attempt()
"""


def plain_uid() -> int:
    """Whose processes and targets these are: our own uid, or, for root, one that is nobody's."""
    return os.getuid() or PLAIN_UID


def start(
    code: str,
    targets: Mapping[str, Any],
    *,
    namespace: bool = False,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    python: str | None = None,
) -> Popen[bytes]:
    """The running process, its order sent; its stdin stays open."""
    order = {
        "code": code,
        "targets": {**targets, "plain": True},
        "uid": plain_uid(),
        "namespace": namespace,
        "directory": targets.get("host_directory", "/"),
    }
    process = Popen(
        [python or sys.executable, "-I", "-B", "-c", LAUNCHER],
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=dict(env or {}),
        pass_fds=tuple(pass_fds),
        start_new_session=False,
        cwd="/",
    )
    stream = process.stdin
    if stream is None:
        raise RuntimeError("stdin was asked for and is none")
    stream.write(json.dumps(order).encode() + b"\n")
    stream.flush()
    return process


def answer(process: Popen[bytes]) -> str:
    """What the attack wrote, or how the process ended."""
    try:
        text, _ = process.communicate(timeout=CONTROL_SECONDS)
    except TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no answer in {CONTROL_SECONDS:g} s"
    return text.decode("utf-8", "replace") or f"no answer, status {process.returncode}"
