"""Which layers this machine grants: asks a process of ours that really tries each one (pyproc_worker.jail.probe).

A process of its own, because the host application may have threads and must not fork itself. Asked once a process.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess

from pyproc.errors import ProtectionUnavailable
from pyproc.sandbox.interpreter import Interpreter, describe

# layer -> (what it needs of the kernel, what to do where it is missing)
NEEDS: dict[str, tuple[str, str]] = {
    "descriptors": ("Linux 5.9, close_range", "use a newer kernel"),
    "environment": ("nothing", "an outer seccomp filter refuses it: run without that filter"),
    "user_namespace": ("CONFIG_USER_NS and user.max_user_namespaces > 0",
                       "raise user.max_user_namespaces, or allow unprivileged user namespaces for this program"),
    "pid_namespace": ("a user namespace or CAP_SYS_ADMIN", "see user_namespace"),
    "network_namespace": ("a user namespace or CAP_SYS_ADMIN", "see user_namespace"),
    "ipc_namespace": ("a user namespace or CAP_SYS_ADMIN", "see user_namespace"),
    "uts_namespace": ("a user namespace or CAP_SYS_ADMIN", "see user_namespace"),
    "cgroup_namespace": ("Linux 4.6 and a user namespace", "see user_namespace"),
    "mount_namespace": ("Linux 5.12, mount_setattr, and a user namespace", "see user_namespace"),
    "rlimits": ("nothing", "an outer seccomp filter refuses it: run without that filter"),
    "capabilities": ("nothing", "an outer seccomp filter refuses it: run without that filter"),
    "no_new_privs": ("Linux 3.5", "use a newer kernel"),
    "dumpable": ("nothing", "an outer seccomp filter refuses it: run without that filter"),
    "parent_death": ("nothing", "an outer seccomp filter refuses it: run without that filter"),
    "mdwe": ("Linux 6.3", "use a newer kernel; W^X pages are then refused"),
    "landlock": ("Linux 5.13 with landlock in the boot parameter lsm=", "add landlock to lsm= and boot again"),
    "seccomp": ("Linux 5.6 with user notification", "run outside a container that already uses a notifier"),
    "cgroup": ("a writable cgroup: root, or a delegated subtree",
               "start it in a leaf of a delegated group; pyproc doctor prints the lines"),
}
PROBE_SECONDS = 60.0


@functools.cache
def granted() -> tuple[dict[str, str], int]:
    """(layer -> "" or the kernel's refusal, Landlock ABI), for all layers but cgroup. Raises ProtectionUnavailable."""
    interpreter: Interpreter = describe()
    entrance = os.path.join(interpreter.packages, "pyproc_worker", "__main__.py")
    argv = [interpreter.executable, "-I", "-B", "-S", entrance, interpreter.packages, "probe"]
    try:
        run = subprocess.run(argv, capture_output=True, timeout=PROBE_SECONDS, check=True, env={}, cwd="/")
        answer = json.loads(run.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ProtectionUnavailable(f"the layers of this machine cannot be tried: {error}", layer="probe",
                                    remedy="pyproc needs Linux and may not be run from a removed folder") from error
    layers: dict[str, str] = answer["layers"]
    if os.geteuid() != 0 and layers["user_namespace"] and not layers["dumpable"]:
        layers["dumpable"] = "without a user namespace of ours it would hide the worker from an unprivileged supervisor"
    return layers, answer["abi"]
