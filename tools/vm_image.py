"""Builds the guest: a kernel and an archive of files that the kernel unpacks as its root, both below `.cache/vm`.

```
apt-get --download-only, with a package list of its own    .cache/vm/archives/*.deb
pip install --target, from the pinned hashes               .cache/vm/site
each package's tar stream, the files of FILES, the site    .cache/vm/root.cpio, .cache/vm/vmlinuz
```

Rules and reasons:
* Nothing is installed and nothing is mounted on the host, no maintainer script runs, and root is not needed: an archive says who
  owns a file, so no file needs to be made with that owner. What the scripts would have written stands in FILES.
* The packages come from where the host's apt takes them, so the suite is the host's.
* The kernel's archive is not compressed: it is read once, by an emulated processor. Documentation, translations, modules are left
  out: all that the test needs of the kernel is built in.

Rejected: debootstrap and mmdebstrap, which run maintainer scripts in a chroot with the host's /proc and /sys; a disk image, which
needs the kernel's modules before its root, and files of the right owner.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import environment
from environment import Missing

TOP = Path(__file__).resolve().parent.parent
FOLDER = TOP / ".cache" / "vm"
ROOT, KERNEL, STAMP = FOLDER / "root.cpio", FOLDER / "vmlinuz", FOLDER / "root.stamp"
USER = 41234  # the unprivileged one, as in tools/elsewhere.py
PACKAGES = ("linux-image-cloud-amd64", "base-files", "bash", "coreutils", "dash", "grep", "sed", "python3", "systemd-sysv", "dbus",
            "dbus-user-session", "libpam-systemd", "util-linux", "apparmor")
NEEDED_BY_SCRIPTS_ONLY = re.compile(  # dependencies of PACKAGES, most of them of the kernel's own installation
    r"(adduser|debconf|dpkg|initramfs-tools.*|klibc-utils|libklibc|libfile-find-rule-perl|libnumber-compare-perl"
    r"|libtext-glob-perl|libperl.*|perl.*|linux-base|udev|usrmerge)_")
DROPPED = re.compile(r"(usr/share/(doc|man|locale|info|lintian|bug|bash-completion|zoneinfo|perl.*)|usr/lib/modules|boot)(/|$)")
KERNEL_FILE = re.compile(r"boot/vmlinuz-[^/]+")
SECONDS = 900  # one program, on a slow line

INIT = """\
#!/bin/sh
# pivot_root(2) refuses the file system that the kernel unpacked itself: the same one, bound over it, is a root like any other.
mount --bind / /mnt && cd /mnt && mount --move . / && exec chroot . /sbin/init </dev/console >/dev/console 2>&1
"""
UNIT = """\
[Unit]
Description=pyproc in a virtual machine
After=dbus.service systemd-logind.service apparmor.service
Wants=dbus.service systemd-logind.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /opt/vm/guest.py /dev/ttyS1
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity
"""
PAM = "account required pam_permit.so\nsession required pam_permit.so\nsession required pam_systemd.so\n"
FILES = {  # path -> text, or the target of a link after "->"
    "init": INIT,
    "bin": "->usr/bin", "sbin": "->usr/sbin", "lib": "->usr/lib", "lib64": "->usr/lib64",
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\nmessagebus:x:101:101::/:/bin/false\nuser:x:{USER}:{USER}::/home/user:/bin/sh\n",
    "etc/group": f"root:x:0:\nmessagebus:x:101:\nuser:x:{USER}:\n",
    "etc/shadow": "",
    "etc/hostname": "guest\n",
    "etc/machine-id": f"{USER:032x}\n",
    "etc/pam.d/systemd-user": PAM,
    "etc/pam.d/other": PAM,
    "etc/systemd/system/pyproc-vm.service": UNIT,
}
GUEST = TOP / "tools" / "vm_guest.py"
FOLDERS = ("dev", "proc", "sys", "run", "tmp", "var/tmp", "root", "home/user", "mnt", "opt/vm")


def build() -> None:
    """Make ROOT and KERNEL, unless they were made of the same packages and files."""
    archives = packages()
    site = project(archives)
    want = digest([*archives, *files_below(site), Path(__file__), GUEST])
    if STAMP.is_file() and STAMP.read_text() == want and ROOT.is_file() and KERNEL.is_file():
        return
    STAMP.unlink(missing_ok=True)
    print("  the guest's root", flush=True)
    with ROOT.open("wb") as file:
        pack(Cpio(file), archives, site)
    STAMP.write_text(want)


def packages() -> list[Path]:
    """The packages and what they depend on, downloaded; nothing counts as installed."""
    folder = FOLDER / "archives"
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    (FOLDER / "status").touch()
    options = {"Dir::State::status": FOLDER / "status", "Dir::Cache::archives": folder, "Debug::NoLocking": 1,
               "APT::Install-Recommends": 0, "APT::Architecture": "amd64", "APT::Sandbox::User": ""}
    command = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    listed = run([*command, "install", "--print-uris", "--quiet=2", *PACKAGES],
                 "apt knows no such packages: it needs Debian's package lists (apt-get update)")
    names = {line.split()[1] for line in listed.splitlines() if line.startswith("'")}
    if names:
        print("  packages of the guest", flush=True)
    run([*command, "install", "--download-only", "--quiet=2", "--assume-yes", *PACKAGES],
        "the guest's packages could not be downloaded: no network, or package lists that are too old (apt-get update)")
    simulated = run([*command, "install", "--simulate", *PACKAGES], "apt cannot say what the guest needs")
    chosen = {(words[1], words[2].lstrip("(")) for line in simulated.splitlines() if (words := line.split()) and words[0] == "Inst"}
    found = [path for path in sorted(folder.glob("*.deb")) if tuple(path.name.split("_")[:2]) in
             {(name, version.replace(":", "%3a")) for name, version in chosen}]
    if len(found) != len(chosen):
        raise Missing(f"{len(chosen)} packages were wanted and {len(found)} are in .cache/vm/archives; remove that folder")
    return [path for path in found if not NEEDED_BY_SCRIPTS_ONLY.match(path.name)]


def project(archives: list[Path]) -> Path:
    """The project's wheel and what it needs at run time, for the guest's interpreter."""
    site = FOLDER / "site"
    minor = next(match[1] for path in archives if (match := re.match(r"python(3\.\d+)-minimal_", path.name)))
    (wheel,) = (TOP / "dist").glob("*/*.whl")
    shutil.rmtree(site, ignore_errors=True)
    pip = [*environment.pip_of(TOP / ".venv"), "install", "--quiet", "--target", str(site), "--no-deps", "--no-compile",
           "--only-binary", ":all:", "--python-version", minor]
    failure = f"the wheels for the guest's python {minor} could not be had"
    run([*pip, "--require-hashes", "--requirement", str(TOP / "requirements" / "runtime.txt")], failure)
    run([*pip, "--no-index", str(wheel)], failure)
    return site


class Cpio:
    """Writes the archive that the kernel unpacks: the format `newc`, everything owned by root unless said otherwise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inode = 0
        self._folders = {""}

    def add(self, path: str, mode: int, content: bytes = b"", uid: int = 0) -> None:
        """One entry, and the folders above it that have none yet."""
        above = os.path.dirname(path)
        if above not in self._folders:
            self.add(above, stat.S_IFDIR | 0o755)
        if stat.S_ISDIR(mode):
            if path in self._folders:
                return
            self._folders.add(path)
        self._inode += 1
        name = path.encode() + b"\0"
        numbers = (self._inode, mode, uid, uid, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        self._padded(b"070701" + b"".join(b"%08x" % number for number in numbers) + name)
        self._padded(content)

    def end(self) -> None:
        """The entry that ends an archive."""
        self.add("TRAILER!!!", 0)

    def _padded(self, part: bytes) -> None:
        self._file.write(part + bytes(-len(part) % 4))


def pack(cpio: Cpio, archives: Iterable[Path], site: Path) -> None:
    """Write the whole root, and KERNEL on the way."""
    for path in FOLDERS:
        sticky = 0o1777 if path in ("tmp", "var/tmp") else 0o755
        cpio.add(path, stat.S_IFDIR | sticky, uid=USER if path == "home/user" else 0)
    for path, text in FILES.items():
        if text.startswith("->"):
            cpio.add(path, stat.S_IFLNK | 0o777, text[2:].encode())
        else:
            cpio.add(path, stat.S_IFREG | (0o755 if path == "init" else 0o644), text.encode())
    cpio.add("opt/vm/guest.py", stat.S_IFREG | 0o644, GUEST.read_bytes())
    for archive in archives:
        unpack(cpio, archive)
    for file in files_below(site):
        cpio.add(f"opt/site/{file.relative_to(site)}", stat.S_IFREG | 0o644, file.read_bytes())
    cpio.end()


def unpack(cpio: Cpio, archive: Path) -> None:
    """Add a package's files, as they lie on a system whose /bin, /lib and /sbin are links into /usr."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None  # noqa: S101 - as it was asked for
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for entry in tar:
                path = re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", entry.name.removeprefix("./"))
                content = tar.extractfile(entry) if entry.isfile() else None
                if KERNEL_FILE.fullmatch(path) and content is not None:
                    KERNEL.write_bytes(content.read())
                if path in ("", ".", *FILES) or DROPPED.match(path):
                    continue
                if content is not None:
                    cpio.add(path, stat.S_IFREG | entry.mode, content.read())
                elif entry.issym():
                    cpio.add(path, stat.S_IFLNK | 0o777, entry.linkname.encode())
                elif entry.isdir():
                    cpio.add(path, stat.S_IFDIR | entry.mode)
                elif entry.islnk():
                    raise Missing(f"{archive.name} has a hard link, {path}, which the image has no entry for")
    if process.returncode:
        raise Missing(f"{archive.name} cannot be read by dpkg-deb; remove .cache/vm/archives")


def files_below(folder: Path) -> list[Path]:
    """The files below `folder`, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def digest(paths: Iterable[Path]) -> str:
    """One hash over names and contents; of a package the name is enough, as apt has compared its hash."""
    total = hashlib.sha256()
    for path in paths:
        content = b"" if path.suffix == ".deb" else path.read_bytes()
        total.update(str(path.relative_to(TOP)).encode() + b"\0" + content + b"\0")
    return total.hexdigest()


def run(arguments: list[str], failure: str) -> str:
    """What a program says. Raises Missing with its last words if it fails."""
    try:
        done = subprocess.run(arguments, cwd=TOP, stdin=subprocess.DEVNULL, timeout=SECONDS, capture_output=True, text=True,
                              errors="replace", check=False, env={**os.environ, "LC_ALL": "C"})
    except subprocess.TimeoutExpired as timeout:
        raise Missing(f"{failure} (no end after {SECONDS} s)") from timeout
    if done.returncode:
        raise Missing("\n  ".join([failure, *done.stderr.strip().splitlines()[-4:]]))
    return done.stdout
