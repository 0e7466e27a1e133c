"""How to get a layer that is missing, in the exact lines for this machine. Pure: what was read of the machine comes in.

The general remedies stand beside the layers in `sandbox.probe.NEEDS`. Here are those that depend on who runs and which switch
of this kernel is in the way.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyproc.host.cgroup import LEAF

SWITCHES = {  # name -> where the kernel shows it; absent where the kernel or the distribution does not have it
    "user.max_user_namespaces": "/proc/sys/user/max_user_namespaces",
    "kernel.unprivileged_userns_clone": "/proc/sys/kernel/unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "lsm": "/sys/kernel/security/lsm",
}
_SERVICE = f"as a service: [Service] Delegate=memory pids cpu and DelegateSubgroup={LEAF} (systemd 254)"
_USER = f"as a user: systemd-run --user --pty -p Delegate=yes -p DelegateSubgroup={LEAF} COMMAND"
_ROOT = f"as root: systemd-run --pty -p Delegate=yes -p DelegateSubgroup={LEAF} COMMAND"
_IN_A_LEAF = ("--scope -p Delegate=yes sh -c "
              "'g=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); "
              f"mkdir $g/{LEAF}; echo $$ > $g/{LEAF}/cgroup.procs; exec COMMAND'")
_CONTAINER = "in a container: docker run --security-opt seccomp=unconfined, or a seccomp profile that allows unshare, clone and mount"


def remedy(layer: str, general: str, uid: int, switches: Mapping[str, str]) -> str:
    """The remedy for a missing layer. `switches`: those of SWITCHES that this machine has, with their values."""
    if layer == "cgroup":
        older = f"with an older systemd: systemd-run {'--user ' if uid else ''}{_IN_A_LEAF}"
        return f"{_USER if uid else _ROOT}; {_SERVICE}; {older}"
    if layer == "user_namespace" or general == "see user_namespace":
        lines = []
        if switches.get("user.max_user_namespaces") == "0":
            lines.append("sysctl -w user.max_user_namespaces=15000")
        if uid and switches.get("kernel.unprivileged_userns_clone") == "0":
            lines.append("sysctl -w kernel.unprivileged_userns_clone=1")
        if uid and switches.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
            lines.append("an AppArmor profile with the rule `userns,` for the interpreter, "
                         "or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
        return f"{'as root: ' if uid and lines else ''}{'; '.join([*lines, _CONTAINER])}"
    if layer == "landlock" and "lsm" in switches:
        return f"boot with lsm=landlock,{switches['lsm']}" if "landlock" not in switches["lsm"].split(",") else general
    return general
