"""A hardened systemd unit for the program that makes the pool, and entries for its user and directories. Pure.

Rules and reasons:
* The service has the means to make its workers' namespaces and nothing that is not needed for that. What stays open for it, and
  is scored by `systemd-analyze security`: namespaces, mount(2), capset(2), pidfd_getfd(2). ProtectHostname= stays off, as its
  filter refuses the sethostname(2) of a worker's own namespace.
* PrivateUsers= shows clients of other uids as nobody: right where only the service's own uid may connect, which is the default,
  and off for `foreign_clients`.
* ProtectControlGroups= with the unit's own group made writable again: workers' groups live there and nowhere else.
* ProtectHome= and PrivateTmp= hide what lies below /home, /root, /run/user and /tmp: paths there are bound back, read-only.
* Specifiers: `%` is doubled everywhere, `$` in the command line. A list's item is quoted, its `"` and `\\` escaped. There is no
  escape for control characters in a path: refused.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from pyproc.policy import head, service
from pyproc.policy.subject import Policy

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - names what systemd hides
USER, STATE, RUNTIME, CONFIGURATION = "pyproc", "pyproc", "pyproc", "/etc/pyproc"
START = ("pyproc", "serve", "--config", f"{CONFIGURATION}/pyproc.toml")
WIDTH = 120  # columns
HARDENING = """\
# identity: no root, no capability, no way to gain one
User={user}
Group={user}
PrivateUsers={private_users}
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictSUIDSGID=yes
KeyringMode=private
RemoveIPC=yes
LockPersonality=yes
# files: everything is read-only but the state, the sockets and the unit's own control group
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateMounts=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectControlGroups=yes
ReadWritePaths=-/sys/fs/cgroup/system.slice/%n
StateDirectory={state}
StateDirectoryMode=0700
RuntimeDirectory={runtime}
RuntimeDirectoryMode=0700
# network: none; clients come by Unix sockets
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
IPAddressDeny=any
# resources: workers get control groups of their own
Slice=system.slice
Delegate=yes
RestrictRealtime=yes
LimitCORE=0
# memory: no page is made executable after it was written
MemoryDenyWriteExecute=yes
# system calls: those of the workers and of their supervisor, by name; each worker adds its own filters, which look at arguments
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""


def render(policy: Policy, *, start: Sequence[str] = START, foreign_clients: bool = False, note: str = "") -> str:
    """The unit. `start`: the command line. Raises ConfigError for what a unit cannot say."""
    bound = [path for path in dict.fromkeys((*policy.readable, *_commands(policy, start)))
             if any(path == top or path.startswith(top + "/") for top in HIDDEN)]
    notes = [note] if note else []
    text = head.comment(policy, "systemd unit", *notes, head.NOT_ENFORCED + " here: systemd enforces it where it is installed")
    text += "\n[Unit]\nDescription=pyproc, functions in sandboxed worker processes\nDocumentation=man:systemd.exec(5)\n"
    text += f"\n[Service]\nType=exec\nExecStart={' '.join(_argument(word) for word in start)}\nRestart=on-failure\nTimeoutStopSec=15\n"
    text += HARDENING.format(user=USER, state=STATE, runtime=RUNTIME, private_users="no" if foreign_clients else "yes")
    text += "".join(f"SystemCallFilter={line}\n" for line in textwrap.wrap(" ".join(service.names(policy.source)), WIDTH))
    if bound:
        text += "# what workers read and the lines above hide\n"
        text += "".join(f"BindReadOnlyPaths={quoted(path)}\n" for path in bound)
    return text + "\n[Install]\nWantedBy=multi-user.target\n"


def sysusers(policy: Policy) -> str:
    """The entry for sysusers.d: the account that the unit runs as."""
    text = head.comment(policy, "sysusers.d entry", "the account of the service: no home, no shell, no password")
    return text + f'u {USER} - "pyproc service" - -\n'


def tmpfiles(policy: Policy) -> str:
    """The entries for tmpfiles.d: the directories of the service, for those who start it without the unit."""
    text = head.comment(policy, "tmpfiles.d entries", "the directories of the service; the unit makes the first two itself")
    return text + (f"d /run/{RUNTIME} 0700 {USER} {USER} -\nd /var/lib/{STATE} 0700 {USER} {USER} -\n"
                   f"d {CONFIGURATION} 0750 root {USER} -\n")


def quoted(path: str) -> str:
    """`path` as one item of a list of paths."""
    escaped = head.carried("a systemd unit", "path", path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _argument(word: str) -> str:
    """`word` as one argument of ExecStart."""
    carried = head.carried("a systemd unit", "argument", word)
    if carried and all(c.isascii() and (c.isalnum() or c in "/._-=:,+@") for c in carried) and carried[0] not in "-@:+!":
        return carried
    if carried.startswith("-") and all(c.isascii() and (c.isalnum() or c in "._-=/") for c in carried):
        return carried  # an option: only the program itself may not begin like this, which `_commands` has looked at
    return quoted(word).replace("$", "$$")


def _commands(policy: Policy, start: Sequence[str]) -> list[str]:
    """What must be visible for the start besides what workers read."""
    if not start or not start[0] or start[0][0] in "-@:+!|" or ("/" in start[0] and not start[0].startswith("/")):
        raise head.refuse("a systemd unit", "command", " ".join(start), "its program is neither a name nor an absolute path",
                          "give the program's absolute path")
    script = [policy.script] if policy.script else []
    interpreter = os.path.normpath(policy.interpreter.executable), policy.program
    return [*(word for word in start[:1] if word.startswith("/")), *script, *interpreter]
