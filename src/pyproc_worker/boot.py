"""From exec to a confined zygote: the three stages, and what is said between them and the supervisor.

    supervisor                         stage 0 (host)            stage 1 (in the user namespace)      pid 1
       | spawn, fds 0-4 ------------------> |
       |                                    | unshare(user)
       | <---- lifeline: "U" -------------- |
       | writes setgroups, uid_map, gid_map |
       | ----- lifeline: "M" -------------> | exec itself ------> |
       | ----- control: plan (JSON) ------------------------------> | unshare(the rest), fork -------> |
       |                                                            | keeper: waits for the lifeline   | apply(plan)
       | <---- control: {"applied": […]} ----------------------------------------------------------- |
       | compares it with the plan, and /proc with its environment and limits                        |
       | <---- control: {"listener": n} ------------------------------------------------------------- |
       | takes the listener by pidfd_getfd; control: "L" -------------------------------------------> | closes it
       | <---- control: {"loaded": …} or {"failed": …} ----------------------------------------------- | imports the script

Descriptors: 0 null, 1 and 2 pipes, 3 control, 4 lifeline. The exec inside the user namespace is what keeps the process
readable for the supervisor (ns, fd, maps) although it is not dumpable: `mm->user_ns` is then a namespace that our uid
owns. The keeper never runs user code: it ends pid 1, and with it the whole namespace, when the lifeline closes, and
removes the cgroups that a killed supervisor left. PDEATHSIG is not used towards the supervisor, as it follows the death
of a thread and a pool may be made in a short-lived one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import Any

from pyproc_worker.control import fail, receive_frame, send_frame
from pyproc_worker.door import CONTROL, LIFELINE
from pyproc_worker.jail import apply, libc, namespaces, worker


def main(refusal: str = "") -> None:
    """Stage "inner": from the exec to pid 1; or, with the `refusal` of the kernel to make a user namespace, its report."""
    if refusal:
        fail("user_namespace", refusal)
    libc.close_all_but({0, 1, 2, CONTROL, LIFELINE})
    control = socket.socket(fileno=CONTROL)
    _enter(receive_frame(control), control)


def _enter(plan: dict[str, Any], control: socket.socket) -> None:
    try:
        namespaces.unshare(plan["namespaces"])
    except OSError as error:
        fail("/".join(plan["namespaces"]), str(error))
    # opened before the fork: pid 1 soon moves the root that both share, and these paths are gone then
    try:
        parents = _parents(plan["cgroups"])
    except OSError as error:
        fail("cgroup", str(error))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    child = os.fork()
    if child:
        _keep(child, parents, null)
    for fd in (LIFELINE, null, *(fd for fd, _ in parents)):
        os.close(fd)
    confinement = None if plan["solo"] else worker.Confinement(plan["worker"])
    # now, as an import opens files: a profile may ask the supervisor about that, who answers once the listener is his
    from pyproc_worker import zygote

    try:
        listener, applied = apply.apply(plan)
    except apply.LayerFailed as error:
        fail(error.layer, error.cause_text)
    send_frame(control, {"applied": applied})
    zygote.run(plan, listener, control, confinement)
    os._exit(0)


def _parents(cgroups: list[str]) -> list[tuple[int, str]]:
    """(descriptor of the folder above, name) of each group that a pool may leave."""
    return [(os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC), os.path.basename(path)) for path in cgroups]


def _keep(child: int, parents: list[tuple[int, str]], null: int) -> None:
    """The keeper: lives as long as pid 1 and the lifeline do, then ends what is left."""
    for fd in (1, 2, CONTROL):
        os.dup2(null, fd)
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(LIFELINE, select.POLLIN | select.POLLHUP)
    poll.register(pidfd, select.POLLIN)
    ended = {fd for fd, _ in poll.poll()}
    orphaned = LIFELINE in ended
    if pidfd not in ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitpid(child, 0)
    if orphaned:
        _remove_cgroups(parents)
    os._exit(0)


def _remove_cgroups(parents: list[tuple[int, str]]) -> None:
    """Remove a pool's groups, children first; they are empty once pid 1 is gone. Each is tried while it is busy."""
    for fd, name in parents:
        for _ in range(200):
            try:
                group = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                try:
                    for entry in os.scandir(group):
                        if entry.is_dir():
                            os.rmdir(entry.name, dir_fd=group)
                finally:
                    os.close(group)
                os.rmdir(name, dir_fd=fd)
                break
            except FileNotFoundError:
                break
            except OSError:
                select.select([], [], [], 0.01)
