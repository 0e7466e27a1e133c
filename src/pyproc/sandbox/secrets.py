"""Names and places of secrets: paths that are never proposed for `sandbox.read`, as what is behind them would let a worker become
somebody, and names that `doctor` looks for below the paths that are listed. Pure.

Rules and reasons:
* A proposal is read by somebody in a hurry, and what a worker asks for is the worker's choice. Who needs one of these writes it
  into the configuration himself; nothing here refuses that.
* By place, not by content. Kernel views (/proc, /sys), devices and sockets of services are in the list as they are no files.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

from pyproc.sandbox.paths import beneath

KERNEL_VIEWS: Final = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot")
ACCOUNTS: Final = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh",
                   "/etc/ssl/private", "/etc/krb5.keytab", "/etc/machine-id", "/etc/crypttab", "/etc/wireguard", "/etc/NetworkManager",
                   "/root/.ssh", "/var/lib/docker", "/var/lib/kubelet", "/var/lib/systemd/credential.secret", "/var/spool/cron")
NAMES: Final = frozenset({
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".pgpass", ".my.cnf", ".pypirc", ".npmrc", ".git-credentials",
    ".password-store", ".mozilla", ".vault-token", ".terraform.d",
})  # fmt: skip
PLACES: Final = frozenset({".config/gcloud", ".config/gh", ".local/share/keyrings", ".cargo/credentials.toml"})
FILES: Final = re.compile(r"id_(?:rsa|dsa|ecdsa|ed25519)|\.env(?:\..+)?|credentials(?:\.json)?|g?shadow-?|.*key.*\.pem|.*_history"
                          r"|.+\.(?:key|p12|pfx|kdbx|jks|keytab)")


def named(name: str) -> bool:
    """Whether a file or folder of this name holds secrets as a rule."""
    return name in NAMES or FILES.fullmatch(name) is not None


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
        if part in NAMES or any(posixpath.join(*parts[at : at + n]) in PLACES for n in (2, 3)):
            return f"{path!r} is where a user's credentials are kept"
    if named(parts[-1]):
        return f"{path!r} has the name of a file with secrets"
    return ""
