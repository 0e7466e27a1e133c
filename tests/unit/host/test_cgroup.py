"""Real groups where this machine grants them; the discovery of what is granted, on the texts of several machines."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyproc.errors import ProtectionUnavailable
from pyproc.host import cgroup, group, libc, pidfd, procfs

Start = Callable[..., "subprocess.Popen[bytes]"]
SLEEP = "say(); sys.stdin.read()"
MEMORY = 64 << 20  # bytes
GRANTED, REFUSAL = cgroup.parents(also=("cpu", "freezer"))
granted = pytest.mark.skipif(not GRANTED, reason=f"needs a cgroup with memory and pids: {REFUSAL}")
frozen = pytest.mark.skipif("freezer" not in GRANTED, reason="needs a cgroup freezer")


def v1_freezer() -> dict[str, str]:
    """The version 1 freezer's folder, as machines without version 2 have it."""
    for hierarchy in cgroup.hierarchies(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()):
        if "freezer" in hierarchy.controllers and os.access(hierarchy.folder, os.W_OK):
            return {"freezer": hierarchy.folder}
    return {}


@pytest.fixture
def make() -> Iterator[Callable[..., cgroup.Group]]:
    """make(*controllers beyond memory and pids, **Group options): a group below a pool's folder; all are removed."""
    base, made = cgroup.owner_name(), []

    def one(*also: str, parents: dict[str, str] = GRANTED, **options: Any) -> cgroup.Group:
        folders = {name: f"{parents[name]}/{base}/worker-{len(made)}" for name in ("memory", "pids", *also)}
        made.append(cgroup.Group(folders, **{"memory": MEMORY, "pids": 20, **options}))
        return made[-1]

    yield one
    for each in made:
        each.kill()
        assert each.remove()
    for parent in {*GRANTED.values(), *v1_freezer().values()}:
        assert cgroup.remove(f"{parent}/{base}")
        assert not os.path.exists(f"{parent}/{base}")


@granted
def test_a_probe_leaves_nothing() -> None:
    before = {parent: sorted(os.listdir(parent)) for parent in GRANTED.values()}
    folders, refusal = cgroup.parents()
    assert (set(folders), refusal) == ({"memory", "pids"}, "")
    for parent, names in before.items():
        own = [name for name in os.listdir(parent) if f"-{os.getpid()}-" in name]
        assert own == [name for name in names if f"-{os.getpid()}-" in name]


@granted
def test_a_process_is_in_every_folder_after_it_was_added(make: Callable[..., cgroup.Group], start: Start) -> None:
    child, one = start(SLEEP), make()
    assert not one.holds(child.pid)
    one.add(child.pid)
    assert one.holds(child.pid)
    assert one.members() == {child.pid}
    text = Path(f"/proc/{child.pid}/cgroup").read_text()
    assert text.count("/worker-0") == len(one.paths())


@granted
def test_a_process_that_is_gone_cannot_be_added(make: Callable[..., cgroup.Group]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError, match=r"cgroup.procs does not take"):
        make().add(child.pid)


@granted
def test_memory_beyond_the_limit_ends_the_process_and_is_counted(make: Callable[..., cgroup.Group], start: Start) -> None:
    child, one = start("say(); sys.stdin.readline(); b = bytearray(256 << 20); b[::4096] = b'x' * len(b[::4096])"), make()
    one.add(child.pid)
    assert one.oom_kills() == 0
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait(timeout=20) == -9
    assert one.oom_kills() == 1


@granted
def test_forks_beyond_the_limit_are_refused(make: Callable[..., cgroup.Group], start: Start) -> None:
    code = ("say(); sys.stdin.readline()\nn = 0\nwhile n < 50:\n    try:\n        if os.fork() == 0: signal.pause()\n"
            "        n += 1\n    except OSError as e: print(n, e.errno, flush=True); break\n"
            "os.kill(0, 9)")
    child, one = start("os.setsid()\n" + code), make(pids=5)
    one.add(child.pid)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    assert child.stdout.readline().split() == [b"4", str(errno.EAGAIN).encode()]


@granted
@pytest.mark.skipif("cpu" not in GRANTED, reason="needs the cgroup cpu controller")
def test_processors_are_bounded_where_they_are_asked_for(make: Callable[..., cgroup.Group]) -> None:
    one = make("cpu", cpus=0.5)
    (folder,) = [path for path in one.paths() if path.startswith(GRANTED["cpu"])][-1:]
    if group.unified(folder):
        assert Path(f"{folder}/cpu.max").read_text() == "50000 100000\n"
    else:
        assert Path(f"{folder}/cpu.cfs_quota_us").read_text() == "50000\n"


@granted
def test_processors_that_cannot_be_bounded_are_refused(make: Callable[..., cgroup.Group]) -> None:
    with pytest.raises(ProtectionUnavailable, match=r"limits.cpus is 0.5") as caught:
        make(cpus=0.5)
    assert caught.value.layer == "cgroup"


@granted
def test_the_cpu_controller_is_not_joined_without_a_bound(make: Callable[..., cgroup.Group]) -> None:
    if "cpu" not in GRANTED or GRANTED["cpu"] in (GRANTED["memory"], GRANTED["pids"]):
        pytest.skip("needs a cpu controller in a hierarchy of its own")
    assert not any(path.startswith(GRANTED["cpu"] + "/") for path in make("cpu").paths())


@granted
@frozen
@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_group_stands_and_goes_on(make: Callable[..., cgroup.Group], start: Start, version: int) -> None:
    parents = {**GRANTED, **(v1_freezer() if version == 1 else {})}
    if group.unified(parents["freezer"]) != (version == 2):
        pytest.skip(f"needs a writable cgroup version {version} freezer")
    child, one = start("say()\nfor line in sys.stdin: print(line, end='', flush=True)"), make("freezer", parents=parents)
    one.add(child.pid)
    assert one.freeze()
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"echo\n")
    child.stdin.flush()
    assert not libc.kernel.poll(child.stdout.fileno(), 1, 50)
    one.thaw()
    assert child.stdout.readline() == b"echo\n"


@granted
@pytest.mark.parametrize("how", ["at once", "frozen", "each"])
def test_a_group_that_forks_all_the_time_is_killed(make: Callable[..., cgroup.Group], start: Start, how: str) -> None:
    parents, also = dict(GRANTED), ("freezer",)
    if how == "frozen":
        parents.update(v1_freezer())
    if how == "each" and not group.unified(GRANTED["pids"]):
        also = ()
    elif how == "each" or ("freezer" not in parents) or group.unified(parents["freezer"]) != (how == "at once"):
        pytest.skip("needs another cgroup version than this machine grants")
    child = start("os.setsid(); say(); sys.stdin.readline()\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n"
                  "    try: os.fork()\n    except OSError: pass")
    one = make(*also, parents=parents, pids=12)
    one.add(child.pid)
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    assert group.within(5, lambda: len(one.members()) > 4)
    assert one.kill()
    assert one.members() == frozenset()


@granted
def test_a_group_is_removed_while_its_process_dies(make: Callable[..., cgroup.Group], start: Start) -> None:
    child, one = start("b = bytearray(32 << 20); " + SLEEP), make()
    one.add(child.pid)
    assert not one.remove(seconds=0.0)
    child.kill()
    assert one.remove()
    assert not any(os.path.exists(path) for path in one.paths())
    assert one.remove()


@granted
def test_another_may_remove_it_by_the_parents_descriptors(make: Callable[..., cgroup.Group]) -> None:
    one = make()
    held = one.parent_fds()
    assert len(held) == len(one.paths())
    for fd, name in held:
        os.rmdir(name, dir_fd=fd)
        os.close(fd)
    assert not any(os.path.exists(path) for path in one.paths())


@granted
def test_whatever_call_fails_no_group_is_left_half_made(failing: Callable[..., Any]) -> None:
    base = cgroup.owner_name()
    folders = {name: f"{GRANTED[name]}/{base}/worker" for name in ("memory", "pids")}
    cgroup.Group(folders, memory=MEMORY, pids=5).remove()  # now the pool's folder exists, as in every later start
    made = failing(0, errno.EIO)
    cgroup.Group(folders, memory=MEMORY, pids=5).remove()
    until_made = [n for n, name in enumerate(made.made, 1) if name not in ("rmdir", "close")]
    failures = 0
    try:
        for nth in until_made:
            failing(nth, errno.EIO)
            try:
                cgroup.Group(folders, memory=MEMORY, pids=5).remove()
            except OSError:
                failures += 1
            failing(0, 0)
            assert not any(os.path.exists(folder) for folder in folders.values()), made.made[nth - 1]
    finally:
        for folder in folders.values():
            cgroup.remove(folder)
            cgroup.remove(os.path.dirname(folder))
    assert failures >= len(until_made) - 8  # those of the swap limit are no errors but `swap_bounded` False


@granted
def test_a_limit_that_the_kernel_does_not_take_is_an_error(make: Callable[..., cgroup.Group], tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"pids.max"):
        make(pids=-5)
    path = tmp_path / "pids.max"
    path.write_text("17")
    path.chmod(0o600)
    real = procfs.read(str(path))
    assert real == b"17"


def test_a_limit_is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "memory.max"
    path.write_text("max\n")
    monkeypatch.setattr(group, "write", lambda path, text: None)  # a kernel that ignores it
    with pytest.raises(OSError, match="is max after 4096 was written"):
        group.limit(str(path), 4096)


@granted
def test_sweep_removes_what_a_dead_maker_left_and_nothing_else(start: Start) -> None:
    parent = GRANTED["memory"]
    child = start("say(); sys.stdin.read()")
    namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    born = procfs.stat(child.pid).start
    alive, dead, reused = (f"pyproc-{namespace}-{pid}-{when}-{mark * 8}" for pid, when, mark in
                           [(child.pid, born, "a"), (4194304, 1, "b"), (child.pid, born + 1, "c")])
    foreign, strange, busy = f"pyproc-1-4194304-1-{'d' * 8}", "pyproc-4194304-x", f"pyproc-{namespace}-4194304-2-{'e' * 8}"
    names = [alive, dead, f"{dead}/worker-1", reused, foreign, strange, busy, f"{busy}/worker-1"]
    try:
        for name in names:
            os.mkdir(f"{parent}/{name}")
        group.write(f"{parent}/{busy}/worker-1/cgroup.procs", str(child.pid))
        removed = cgroup.sweep([parent, parent])
        assert {f"{parent}/{dead}", f"{parent}/{reused}"} <= set(removed)
        left = set(os.listdir(parent))
        assert {alive, foreign, strange, busy} <= left
        assert not {dead, reused} & left
    finally:
        child.kill()
        child.wait()
        for name in reversed(names):
            assert cgroup.remove(f"{parent}/{name}")


def test_owner_names_are_distinct_and_recognised() -> None:
    one, other = cgroup.owner_name(), cgroup.owner_name()
    assert one != other
    assert cgroup.NAME.fullmatch(one)
    assert not cgroup._dead(one)


V1 = ("9:name=systemd:/\n4:memory:{own}\n3:cpu,cpuacct:{own}\n8:pids:/\n0::/\n",
      "24 30 0:26 / {mount}/systemd rw - cgroup cgroup rw,name=systemd\n"
      "25 30 0:27 {root} {mount}/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
      "26 30 0:28 {root} {mount}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "27 30 0:29 / {mount}/pids rw - cgroup cgroup rw,pids\n"
      "28 30 0:30 / {mount}/unified rw - cgroup2 cgroup2 rw\n"
      "29 30 0:31 / / rw - ext4 /dev/root rw\n")


@pytest.mark.parametrize(
    ("own", "root", "inside"),
    [("/", "/", ""), ("/a/b", "/", "/a/b"), ("/docker/c1", "/docker/c1", ""), ("/docker/c1/x", "/docker/c1", "/x"),
     ("/absent", "/", ""), ("/docker/c2", "/docker/c1", ""), ("/docker/c12", "/docker/c1", ""), ("/../x", "/", ""),
     ("/", "/docker/c1", "")],
)
def test_our_own_folder_is_found_in_what_is_mounted(tmp_path: Path, own: str, root: str, inside: str) -> None:
    mount = tmp_path / "sys fs"
    for below in ("a/b", "x", "2"):
        (mount / "memory" / below).mkdir(parents=True)
    texts = [text.format(own=own, root=root, mount=str(mount).replace(" ", "\\040")) for text in V1]
    found = cgroup.hierarchies(*texts)
    (memory,) = [each for each in found if "memory" in each.controllers]
    assert memory == cgroup.Hierarchy(f"{mount}/memory{inside}", 1, frozenset({"memory"}))
    assert found[0] == cgroup.Hierarchy(f"{mount}/unified", 2, frozenset())
    assert frozenset({"cpu", "cpuacct"}) in [each.controllers for each in found]
    assert not any("systemd" in each.folder for each in found if not each.controllers & {"name=systemd"})


class Unified:
    """A machine with version 2 only, made of files; it obeys the rule that a group with processes passes nothing on."""

    def __init__(self, top: Path, controllers: str, procs: str) -> None:
        self.own = top / "user.slice" / "app.scope"
        self.own.mkdir(parents=True)
        self.controllers = controllers
        self.fill(self.own, controllers)
        (self.own / "cgroup.procs").write_text(procs)
        self.removed: list[str] = []
        kernel = libc.Kernel()
        self.texts = {"/proc/self/cgroup": b"0::/user.slice/app.scope\n",
                      "/proc/self/mountinfo": f"30 24 0:26 / {top} rw - cgroup2 cgroup2 rw\n".encode()}
        self.read = lambda path, **how: self.texts[path] if path in self.texts else _real_read(path, **how)
        self.kernel = kernel
        kernel.mkdir = self.mkdir  # type: ignore[method-assign, assignment]
        kernel.rmdir = self.rmdir  # type: ignore[method-assign, assignment]

    def fill(self, folder: Path, controllers: str) -> None:
        (folder / "cgroup.controllers").write_text(controllers)
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.freeze", "cgroup.kill"):
            (folder / name).write_text("")
        (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
        for name, files in {"memory": ("max", "swap.max", "oom.group", "events"), "pids": ("max", "events"),
                            "cpu": ("max",)}.items():
            if name in controllers.split():
                for file in files:
                    (folder / f"{name}.{file}").write_text("")

    def stand_in(self, folder: Path) -> None:
        self.mkdir(str(folder), 0o755)
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        self.texts["/proc/self/cgroup"] = f"0::/user.slice/app.scope/{folder.name}\n".encode()

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)
        parent = Path(path).parent
        self.fill(Path(path), (parent / "cgroup.subtree_control").read_text())

    def rmdir(self, path: str) -> None:
        for file in Path(path).iterdir():
            if file.is_file():
                file.unlink()
        os.rmdir(path)
        self.removed.append(path)

    def write(self, path: str, text: str) -> None:
        folder, name = Path(path).parent, Path(path).name
        if name == "cgroup.subtree_control":
            if (folder / "cgroup.procs").read_text().strip():
                raise OSError(errno.EBUSY, f"{path} does not take {text!r}: Device or resource busy")
            assert text[1:] in self.controllers.split()
            (folder / name).write_text(((folder / name).read_text() + " " + text[1:]).strip())
        elif name == "cgroup.procs":
            (self.own / name).write_text(" ".join(pid for pid in (self.own / name).read_text().split() if pid != text))
            (folder / name).write_text(text)
        else:
            (folder / name).write_text(text + "\n")


_real_read = procfs.read


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Unified]:
    def make(controllers: str = "cpu memory pids", procs: str = "") -> Unified:
        one = Unified(tmp_path, controllers, procs)
        monkeypatch.setattr(libc, "kernel", one.kernel)
        monkeypatch.setattr(procfs, "read", one.read)
        for module in (group, cgroup):
            monkeypatch.setattr(module, "write", one.write)
        return one

    return make


def test_version_2_is_granted_where_controllers_can_be_passed_on(machine: Callable[..., Unified]) -> None:
    one = machine()
    assert cgroup.parents(also=("cpu", "freezer")) == (dict.fromkeys(("memory", "pids", "cpu", "freezer"), str(one.own)), "")
    assert len(one.removed) == 4


def test_version_2_with_our_processes_in_the_way_is_refused_with_the_remedy(machine: Callable[..., Unified]) -> None:
    machine(procs=f"{os.getpid()}\n")
    folders, refusal = cgroup.parents()
    assert folders == {}
    assert "busy" in refusal
    assert "Delegate=yes" in refusal


def test_a_delegated_service_moves_itself_aside_and_is_found_there(machine: Callable[..., Unified]) -> None:
    one = machine(procs=f"{os.getpid()}\n")
    folders, refusal = cgroup.parents(move_self=True)
    assert (folders, refusal) == ({"memory": str(one.own), "pids": str(one.own)}, "")
    assert (one.own / cgroup.LEAF / "cgroup.procs").read_text() == str(os.getpid())


def test_a_process_that_was_started_in_a_leaf_makes_groups_beside_it(machine: Callable[..., Unified]) -> None:
    one = machine()
    one.stand_in(one.own / cgroup.LEAF)  # which has no controller: the group above it has passed nothing on yet
    assert cgroup.parents(also=("cpu",)) == (dict.fromkeys(("memory", "pids", "cpu"), str(one.own)), "")


def test_a_service_that_is_not_alone_moves_nobody(machine: Callable[..., Unified]) -> None:
    one = machine(procs=f"{os.getpid()} 1\n")
    assert cgroup.parents(move_self=True)[0] == {}
    assert not (one.own / cgroup.LEAF).exists()


def test_version_2_without_the_controllers_names_the_missing_one(machine: Callable[..., Unified]) -> None:
    machine(controllers="hugetlb")
    assert cgroup.parents() == ({}, "no cgroup hierarchy has the controller memory")


def test_a_version_2_group_is_one_folder_with_all_its_limits(machine: Callable[..., Unified]) -> None:
    one = machine()
    parents, _ = cgroup.parents(also=("cpu",))
    made = cgroup.Group({name: f"{folder}/pool/worker" for name, folder in parents.items()}, memory=MEMORY, pids=7, cpus=1.5)
    folder = one.own / "pool" / "worker"
    assert made.paths() == (str(folder),)
    assert {name: (folder / name).read_text().strip() for name in
            ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max")} == {
        "memory.max": str(MEMORY), "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "7", "cpu.max": "150000 100000"}
    assert made.swap_bounded
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    assert made.oom_kills() == 2
    assert made.remove()


@frozen
@pytest.mark.skipif(not group.unified(GRANTED.get("freezer", "/")), reason="needs a writable cgroup version 2")
def test_a_real_version_2_group_is_killed_at_once(start: Start) -> None:
    child = start(SLEEP)
    folder = f"{GRANTED['freezer']}/{cgroup.owner_name()}"
    os.mkdir(folder)
    try:
        group.write(f"{folder}/cgroup.procs", str(child.pid))
        fd = pidfd.open(child.pid)
        try:
            group.write(f"{folder}/cgroup.kill", "1")
            assert pidfd.wait(fd, 5)
        finally:
            os.close(fd)
    finally:
        child.kill()
        child.wait()
        assert cgroup.remove(folder)
