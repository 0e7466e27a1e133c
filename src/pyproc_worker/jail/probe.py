"""Which layers this machine grants, found by really doing each one in a forked child.

Reading sysctls is not enough: on some hosts unshare succeeds and the mounts fail afterwards, and inside a container a
filter may refuse any of it. Runs in a process of its own (stage "probe"), single-threaded, and prints one JSON object:
layer -> "" where it worked, else the text of the error.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable

from pyproc_worker.jail import credentials, landlock, libc, mounts, namespaces, seccomp

ALLOW_ALL = bytes.fromhex("0600000000 00ff7f".replace(" ", ""))
FILE_PLAN = {"mounts": [], "links": {}, "scratch": {"path": "/scratch", "bytes": 0, "files": 0}}


def main() -> None:
    """Print the JSON document and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an application that ignores it hands that down through exec
    found = {"layers": {name: _attempt(action) for name, action in ATTEMPTS.items()}, "abi": landlock.abi()}
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()


def _attempt(action: Callable[[], object]) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            action()
        except (OSError, ValueError) as error:
            text = str(error) or type(error).__name__
        os.write(writer, b"." + text.encode()[:400])
        os._exit(0)
    os.close(writer)
    answer = os.read(reader, 512) if select.select([reader], [], [], 10)[0] else b""
    os.close(reader)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return answer[1:].decode(errors="replace") if answer else "the attempt ended without an answer"


def _in_user_namespace(kinds: list[str], after: Callable[[], object] | None = None) -> Callable[[], None]:
    """Enter a user namespace with ourselves as its root (as root already: without), then the other kinds."""

    def attempt() -> None:
        uid, gid = os.geteuid(), os.getegid()
        namespaces.unshare(["user"])
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        namespaces.unshare(kinds)
        if after is not None:
            after()

    return attempt


def _pid() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    if os.waitpid(child, 0)[1]:
        raise OSError(1, "the first child of the namespace is not pid 1")


def _capabilities() -> None:
    uid = os.geteuid()
    if uid != 0:
        try:
            namespaces.unshare(["user"])
        except OSError:
            credentials.drop_capabilities(bounding=False)  # as the plan does where there is no user namespace
            return
        with open("/proc/self/setgroups", "w") as file:
            file.write("deny")
        with open("/proc/self/uid_map", "w") as file:
            file.write(f"0 {uid} 1")
    credentials.drop_capabilities()


def _landlock() -> None:
    if not landlock.abi():
        raise OSError(95, "landlock is not built or not enabled at boot")
    libc.prctl(38, 1)
    landlock.restrict(landlock.abi(), [("/usr", "read")])


def _seccomp() -> None:
    libc.prctl(38, 1)
    listener = seccomp.load(ALLOW_ALL, listener=True)
    # the supervisor takes the listener by pidfd
    own = os.pidfd_open(os.getpid())
    os.close(libc.call("pidfd_getfd", own, listener, 0))


def _mount() -> None:
    mounts.enter_root({**FILE_PLAN, "mounts": [{"source": "/usr", "target": "/usr", "flags": ["ro", "nosuid"]}]})
    if not os.path.isdir("/usr") or os.path.isdir("/etc"):
        raise OSError(1, "the new root does not hold what was asked for")


def _descriptors() -> None:
    libc.close_all_but({0, 1, 2, *(int(fd) for fd in os.listdir("/proc/self/fd"))})


ATTEMPTS: dict[str, Callable[[], object]] = {
    "descriptors": _descriptors,
    "environment": lambda: None,
    "user_namespace": _in_user_namespace([]),
    "pid_namespace": _in_user_namespace(["pid"], _pid),
    "network_namespace": _in_user_namespace(["network"]),
    "ipc_namespace": _in_user_namespace(["ipc"]),
    "uts_namespace": _in_user_namespace(["uts"], lambda: socket.sethostname("sandbox")),
    "cgroup_namespace": _in_user_namespace(["cgroup"]),
    "mount_namespace": _in_user_namespace(["mount", "pid"], _mount),
    "rlimits": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "capabilities": _capabilities,
    "no_new_privs": lambda: libc.prctl(38, 1),
    "dumpable": lambda: libc.prctl(4, 0),
    "parent_death": lambda: libc.prctl(1, 9),
    "mdwe": lambda: libc.prctl(65, 1),
    "landlock": _landlock,
    "seccomp": _seccomp,
}
