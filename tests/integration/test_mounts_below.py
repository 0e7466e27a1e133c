"""Mounts below what a worker may read, as service managers and container engines make them: seen, and read-only.

    test -- this file, run as a program --> host: a mount namespace of its own, a writable tmpfs below the readable folder
         <------ one JSON document ------- what a worker found there

In the workers' user namespace that mount is locked to the folder, and the folder alone cannot be taken into the new root.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyproc import Pool, Sandbox

pytestmark = pytest.mark.unprivileged

CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 16384, 1 << 18
SCRIPT = """
from pyproc_worker import expose

@expose
def look(path: str) -> list:
    with open(path) as file:
        found = [file.read()]
    try:
        open(path, "w").close()
    except OSError as error:
        found.append(error.strerror)
    return found
"""


def mounted(folder: Path) -> None:
    """A tmpfs with a file at `folder`, in a mount namespace of this process."""
    kernel, uid, gid = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()

    def must(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), "the mount below cannot be made")

    must(kernel.unshare(CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER))
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    must(kernel.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    must(kernel.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"mode=755"))
    (folder / "file").write_text("below")
    (folder / "file").chmod(0o666)


def main() -> None:
    top = Path(sys.argv[1])
    mounted(top / "read" / "below")
    sandbox = Sandbox("default", read=[top / "read"], layers={"landlock": "off", "mount_namespace": "require"})
    with Pool(top / "worker.py", workers=1, sandbox=sandbox) as pool:
        print(json.dumps(pool.call("look", str(top / "read" / "below" / "file"))))


def test_a_mount_below_a_readable_path_is_seen_and_read_only(tmp_path: Path) -> None:
    (tmp_path / "read" / "below").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the workers of root have a uid of their own
    (tmp_path / "worker.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == ["below", "Read-only file system"]


if __name__ == "__main__":
    main()
