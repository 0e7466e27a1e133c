"""What /proc says of real processes, and how a vanished or unreadable one is told."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyproc.host import procfs

Start = Callable[..., "subprocess.Popen[bytes]"]
SLEEP = "say(); sys.stdin.read()"
READERS = [procfs.status, procfs.stat, procfs.namespaces, procfs.descriptors, procfs.children, procfs.limits]


def test_our_own_status_is_what_the_system_calls_say() -> None:
    status = procfs.status(os.getpid())
    assert status.uids == (*os.getresuid(), os.geteuid())
    assert status.gids == (*os.getresgid(), os.getegid())
    assert status.groups == frozenset(os.getgroups())
    assert (status.parent, status.tgid, status.state) == (os.getppid(), os.getpid(), "R")
    assert (status.nspid[0], status.inner_pid) == (os.getpid(), status.nspid[-1])
    assert status.threads >= threading.active_count()
    assert len(status.capabilities) == 5


def test_no_new_privs_and_a_filter_are_seen(start: Start) -> None:
    child = start("import struct\nlibc = ctypes.CDLL(None)\nlibc.prctl(38, 1, 0, 0, 0)\n"
                  "code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\n"
                  "program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(code)))\n"
                  "assert libc.prctl(22, 2, program, 0, 0) == 0\n" + SLEEP)
    status, own = procfs.status(child.pid), procfs.status(os.getpid())
    assert (status.no_new_privs, status.seccomp) == (1, 2)
    assert status.filters in (own.filters + 1, 0)  # 0: not counted before Linux 5.9


def test_a_hostile_name_changes_no_field(start: Start) -> None:
    child = start("ctypes.CDLL(None).prctl(15, b') Z 1\\nUid:\\t7', 0, 0, 0)\n" + SLEEP)
    assert procfs.status(child.pid).uids == procfs.status(os.getpid()).uids
    assert procfs.stat(child.pid).parent == os.getpid()
    assert procfs.stat(child.pid).state in "SR"


def test_namespaces_are_those_of_the_links(start: Start) -> None:
    child = start(SLEEP)
    found = procfs.namespaces(child.pid)
    assert set(found) == set(procfs.KINDS)
    assert found == procfs.namespaces(os.getpid())
    assert found["pid"] == os.readlink("/proc/self/ns/pid")


def test_descriptors_and_what_they_refer_to(start: Start) -> None:
    with open(os.devnull, "rb") as file:
        child = start("r = os.open('/dev/null', os.O_RDONLY | os.O_APPEND)\n"
                      "a = os.dup(0); b = os.dup2(0, 77, inheritable=True); assert r < 77\n" + SLEEP, stderr=file)
        found = procfs.descriptors(child.pid)
    assert found[2] == "/dev/null"
    assert found[77] == found[0]
    assert found[0].startswith("pipe:[")


def test_our_own_descriptors_can_be_listed_while_the_listing_holds_one() -> None:
    found = procfs.descriptors(os.getpid())
    assert set(found) >= {0, 1, 2}
    for fd in found:
        fcntl.fcntl(fd, fcntl.F_GETFD)


@pytest.mark.parametrize("searched", [False, True])
def test_children_are_found_below_every_thread(start: Start, searched: bool) -> None:
    child = start("os.setsid()\ndef fork():\n    if os.fork() == 0: signal.pause()\n"
                  "def fork_and_stay():\n    fork(); done.set(); time.sleep(60)\n"
                  "done = threading.Event()\nfork()\nthreading.Thread(target=fork_and_stay, daemon=True).start()\n"
                  "done.wait(); say(); signal.pause()")
    find = procfs._children_by_search if searched else procfs.children
    try:
        found = find(child.pid)
        assert len(found) == 2
        assert found == sorted(found)
        assert {procfs.stat(pid).parent for pid in found} == {child.pid}
    finally:
        os.killpg(child.pid, 9)


def test_limits_are_those_of_getrlimit() -> None:
    found = procfs.limits(os.getpid())
    assert set(found) == set(procfs.LIMIT_NAMES.values())
    for name in ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_STACK", "RLIMIT_CPU", "RLIMIT_RTTIME"):
        assert found[name] == resource.getrlimit(getattr(resource, name))


@pytest.mark.parametrize("reader", READERS)
def test_a_process_that_is_gone_is_named(reader: Callable[[int], object]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(procfs.GoneError, match=f"/proc/{child.pid}.*gone"):
        reader(child.pid)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("code", "kind"), [(errno.EACCES, procfs.Unreadable), (errno.EPERM, procfs.Unreadable),
                                            (errno.ESRCH, procfs.GoneError), (errno.EMFILE, OSError)])
def test_every_failing_call_is_told_and_leaves_no_descriptor(reader: Callable[[int], object], failing: Callable[..., Any],
                                                            code: int, kind: type[OSError]) -> None:
    made = failing(0, code)
    reader(os.getpid())
    before, kept = len(os.listdir("/proc/self/fd")), 0
    for nth in range(1, len(made.made) + 1):
        calls = failing(nth, code).made
        try:
            reader(os.getpid())
        except OSError as error:
            assert isinstance(error, kind)
            assert f"/proc/{os.getpid()}" in str(error)
        else:  # one descriptor or one thread that vanished is left out
            assert reader in (procfs.descriptors, procfs.children)
            assert code == errno.ESRCH or len(calls) < nth  # a thread of the test's process has ended meanwhile
        kept += calls[nth - 1 : nth] == ["close"]
    # a close that is made to fail is not done: those are the only descriptors that may be left
    failing(0, 0)
    left = len(os.listdir("/proc/self/fd")) - before
    assert left == kept
    _close_the_last(left)


def _close_the_last(count: int) -> None:
    for _ in range(count):
        own = f"/proc/{os.getpid()}/"
        fd = next(int(fd) for fd in os.listdir("/proc/self/fd")
                  if (os.path.lexists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}").startswith(own))
                  and not os.readlink(f"/proc/self/fd/{fd}").endswith("/fd"))
        os.close(fd)


def test_a_process_of_another_uid_is_unreadable() -> None:
    if os.geteuid() != 0:
        with pytest.raises((procfs.Unreadable, procfs.GoneError)):
            procfs.namespaces(1)
        return
    code = ("import os\nos.setgroups([]); os.setresgid(41234, 41234, 41234); "
            "os.setresuid(41234, 41234, 41234)\nfrom pyproc.host import procfs\n"
            "try: procfs.descriptors(os.getppid())\nexcept procfs.Unreadable as error: print(error)")
    source = str(Path(procfs.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", "import pyproc.host.procfs\n" + code], capture_output=True, text=True,
                          timeout=20, check=False, env={**os.environ, "PYTHONPATH": source})
    assert f"/proc/{os.getpid()}/fd may not be read" in done.stdout, done.stderr


def test_memory_that_forks_share_and_may_write_is_seen(tmp_path: Path) -> None:
    before = procfs.shared_memory(os.getpid())
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))

    def more() -> list[str]:
        found = procfs.shared_memory(os.getpid())
        for name in before:
            found.remove(name)
        return found

    with path.open("rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ), mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE):
        assert more() == []
    with mmap.mmap(-1, 4096):
        assert more() == ["/dev/zero (deleted)"]
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
        assert more() == [str(path)]  # mprotect(2) would make it writable
