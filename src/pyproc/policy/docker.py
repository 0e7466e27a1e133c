"""The options of `docker run` (podman has the same) for a container in which the program makes its pool. Pure.

Rules and reasons:
* The output is one shell command line: every value is quoted as POSIX shells read it. `--mount` is a CSV record: a field with a
  comma or a quote is quoted for that, inside. A path with a control character is refused.
* The container's filter is the one around the service, as its workers make namespaces: an engine's own profile refuses
  unshare(2), and so three quarters of the layers. Written by `--format kubernetes`, which prints the same file.
* `apparmor=unconfined`: an engine's own AppArmor profile refuses mount(2), and with it the worker's root.
"""

from __future__ import annotations

import shlex

from pyproc.policy import head
from pyproc.policy.subject import Policy
from pyproc.supervisor.park import PRIVATE_BYTES

SECCOMP_FILE = "pyproc-service.json"
IMAGE = "pyproc"
UID = 10001  # no account of a host
RESERVE = 256 << 20  # bytes for the supervisor and a zygote, beside the workers' own limit
TASKS = 64  # of the supervisor and the boot
LOST = ("what a container takes away: the cgroup layer, as its control groups are read-only; `pyproc doctor` inside says what is left",)


def options(policy: Policy) -> list[str]:
    """The options, in the order of their meaning. Raises ConfigError for paths that cannot be written."""
    memory, tasks = bytes_of(policy), (policy.workers + policy.parked) * (policy.limits.threads + policy.limits.processes) + TASKS
    found = ["--read-only", f"--user={UID}:{UID}", "--cap-drop=ALL", "--security-opt=no-new-privileges",
             f"--security-opt=seccomp={SECCOMP_FILE}", "--security-opt=apparmor=unconfined", "--network=none", "--ipc=private",
             f"--memory={memory}b", f"--memory-swap={memory}b", f"--pids-limit={tasks}",
             "--tmpfs=/tmp:rw,nosuid,nodev,noexec,size=16m", f"--tmpfs=/run/pyproc:rw,nosuid,nodev,noexec,size=1m,uid={UID},mode=0700"]
    if policy.limits.cpus:
        found.append(f"--cpus={policy.workers * policy.limits.cpus:g}")
    return found + [f"--mount={mount(path)}" for path in policy.listed]


def bytes_of(policy: Policy) -> int:
    """What the container may use: workers as much as they may, parked ones what they have of their own."""
    return policy.workers * policy.limits.memory + policy.parked * min(policy.limits.memory, PRIVATE_BYTES) + RESERVE


def mount(path: str) -> str:
    """A read-only bind of `path` onto itself, as one CSV record."""
    carried = head.carried("docker's options", "path", path)
    return ",".join(("type=bind", *(_field(f"{key}={carried}") for key in ("source", "target")), "readonly"))


def render(policy: Policy) -> str:
    """Comments and one command line."""
    text = head.comment(policy, "options of docker run", *LOST, head.NOT_ENFORCED + " here: the engine enforces them",
                        f"{SECCOMP_FILE} is what `pyproc policy export --format kubernetes --part seccomp` prints")
    lines = ["docker run", *(shlex.quote(option) for option in options(policy)), IMAGE]
    return text + " \\\n    ".join(lines) + "\n"


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') else text
