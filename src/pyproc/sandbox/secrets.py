"""Paths that are never proposed for `sandbox.read`: what is behind them would let a worker become somebody. Pure.

Rules and reasons:
* A proposal is read by somebody in a hurry, and what a worker asks for is the worker's choice. Who needs one of these writes it
  into the configuration himself; nothing here refuses that.
* By place, not by content. Kernel views (/proc, /sys), devices and sockets of services are in the list as they are no files.
"""

from __future__ import annotations

import posixpath
from typing import Final

from pyproc.sandbox.paths import beneath

KERNEL_VIEWS: Final = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot")
ACCOUNTS: Final = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh",
                   "/etc/ssl/private", "/etc/krb5.keytab", "/etc/machine-id", "/etc/crypttab", "/etc/wireguard", "/etc/NetworkManager",
                   "/root/.ssh", "/var/lib/docker", "/var/lib/kubelet", "/var/lib/systemd/credential.secret", "/var/spool/cron")
NAMES: Final = frozenset({
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".pgpass", ".my.cnf", ".pypirc", ".npmrc", ".git-credentials",
    ".config/gcloud", ".config/gh", ".local/share/keyrings", ".password-store", ".mozilla", ".bash_history", ".python_history",
    ".vault-token", ".cargo/credentials.toml", ".terraform.d", ".env",
})  # fmt: skip
KEY_NAMES: Final = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "server.key", "privkey.pem")


def reason(path: str) -> str:
    """Why `path`, absolute and without links and dots, is never proposed; "" where it may be."""
    if path == "/":
        return "the root as a whole is never shown"
    if any(beneath(path, view) for view in KERNEL_VIEWS):
        return f"{path!r} shows the machine, its devices or the sockets of its services"
    if any(beneath(path, place) for place in ACCOUNTS):
        return f"{path!r} holds what accounts or services of this machine are known by"
    parts = [part for part in path.split("/") if part]
    if len(parts) == 1 or (len(parts) == 2 and parts[0] == "home") or any(beneath(place, path) for place in (*KERNEL_VIEWS, *ACCOUNTS)):
        return f"{path!r} holds far more than a worker needs, accounts and keys too; list what is needed below it"
    for at, part in enumerate(parts):
        if part in NAMES or any(posixpath.join(*parts[at : at + n]) in NAMES for n in (2, 3)):
            return f"{path!r} is where a user's credentials are kept"
    if parts[-1] in KEY_NAMES or parts[-1].endswith((".key", ".pfx", ".p12", ".kdbx", ".keytab")):
        return f"{path!r} has the name of a private key"
    return ""
