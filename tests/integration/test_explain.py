"""What `policy explain` answers is tried: each act in a pool, yes means that it works and no that it is refused with that errno."""

from __future__ import annotations

import errno
import os
import pathlib
import platform
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from pyproc import Pool, Sandbox
from pyproc.sandbox.acts import Act, SystemCall, said
from pyproc.sandbox.explain import judge
from pyproc.sandbox.paths import look_here
from pyproc.sandbox.rules import U64, syscall_table
from pyproc.sandbox.verdict import Change, Verdict

pytestmark = pytest.mark.unprivileged
WORKER = pathlib.Path(__file__).with_name("explained.py")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """A file's tests share their pools."""


class Place(NamedTuple):
    """Folders of this machine: one that workers may read, one that they are not shown."""

    shown: pathlib.Path
    hidden: pathlib.Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("explain")
    for folder in (base, *base.parents[:3]):
        if folder.stat().st_uid == os.geteuid() and folder != pathlib.Path("/tmp"):
            folder.chmod(0o755)
    shown, hidden = base / "shown", base / "hidden"
    (shown / "folder").mkdir(parents=True)
    (shown / "closed folder").mkdir()
    hidden.mkdir()
    for file in (shown / "file", shown / "closed", shown / "folder" / "file", shown / "closed folder" / "file", hidden / "file"):
        file.write_text("content")
        file.chmod(0o644)
    (shown / "out").symlink_to(hidden / "file")
    (shown / "in").symlink_to("folder/../file")
    (shown / "round").symlink_to("round")
    (hidden / "to shown").symlink_to(shown / "file")
    (shown / "closed").chmod(0)
    (shown / "closed folder").chmod(0)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(shown / "socket"))
    (shown / "socket").chmod(0o777)
    listener.listen()
    yield Place(shown, hidden)
    listener.close()
    (shown / "closed folder").chmod(0o755)


SCOPED = ("kill", "pidfd_open")  # under default let through by the filter, and refused by Landlock's scope with the same errno
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "strict": {"profile": "strict"}, "default": {"profile": "default"}, "scratch": {"profile": "default", "scratch": "1 MiB"},
    "no landlock": {"profile": "default", "layers": {"landlock": "off"}},
}


@pytest.fixture(scope="module")
def pools(place: Place) -> Iterator[dict[str, Pool]]:
    made: dict[str, Pool] = {}
    try:
        for name, options in CONFIGURATIONS.items():
            made[name] = Pool(WORKER, sandbox=Sandbox(read=[place.shown], **options))
        yield made
    finally:
        for pool in made.values():
            pool.close()


ON_FILES = [
    ("open", "shown/file"), ("open", "shown/in"), ("open", "shown/out"), ("open", "shown/closed"),
    ("open", "shown/closed folder/file"), ("open", "shown/nothing"), ("open", "shown/round"), ("open", "hidden/file"),
    ("open", "hidden/nothing"), ("open", "hidden/to shown"), ("open", "shown/folder/../../hidden/file"), ("write", "shown/file"),
    ("write", "shown/new"), ("write", "shown/out"), ("write", "hidden/new"), ("list", "shown"), ("list", "shown/folder"),
    ("list", "shown/closed folder"), ("list", "hidden"), ("stat", "shown/file"), ("stat", "hidden/file"), ("mkdir", "shown/made"),
    ("remove", "shown/file"), ("remove", "hidden/file"), ("rename", "shown/file"), ("truncate", "shown/file"),
    ("chmod", "shown/file"), ("chown", "shown/file"), ("utime", "shown/file"), ("symlink", "shown/link"), ("mkfifo", "shown/pipe"),
    ("exec", "shown/file"), ("connect", "shown/socket"), ("connect", "hidden/none"),
]  # fmt: skip
ELSEWHERE = [
    ("open", "/etc/shadow"), ("open", "/etc/passwd"), ("open", "/proc/self/status"), ("open", "/dev/null"), ("open", "/dev/urandom"),
    ("open", "/dev/tty"), ("open", "/etc/localtime"), ("write", "/dev/null"), ("write", "/dev/zero"), ("write", "/file"),
    ("write", "/usr/lib/no such file"), ("list", "/"), ("list", "/usr/lib"), ("list", "/usr"), ("list", "/home"), ("list", "/scratch"),
    ("stat", "/"), ("stat", "/usr"), ("stat", "/etc/passwd"), ("exec", "/bin/sh"), ("mkdir", "/folder"),
]  # fmt: skip
IN_SCRATCH = [
    ("write", "/scratch/{}", []), ("open", "/scratch/{}", ["/scratch/{}"]), ("mkdir", "/scratch/{}", []),
    ("rmdir", "/scratch/{}", ["/scratch/{}/"]), ("remove", "/scratch/{}", ["/scratch/{}"]), ("rename", "/scratch/{}", ["/scratch/{}"]),
    ("link", "/scratch/{}", ["/scratch/{}"]), ("truncate", "/scratch/{}", ["/scratch/{}"]), ("symlink", "/scratch/{}", []),
    ("mkfifo", "/scratch/{}", []), ("chmod", "/scratch/{}", ["/scratch/{}"]), ("list", "/scratch", []),
]  # fmt: skip
CALLS: list[tuple[str, tuple[int, ...]]] = [
    ("getpid", ()), ("getppid", ()), ("getpgid", (0,)), ("getpgid", (1,)), ("socket", (1, 1, 0)), ("socket", (2, 1, 6)),
    ("socket", (2, 2, 17)), ("socket", (16, 3, 0)), ("socket", (2, 3, 255)), ("socket", (1 << 32 | 40, 1, 0)),
    ("socketpair", (1, 2, 0, 0)), ("ptrace", (0,)), ("unshare", (0x10000000,)), ("setsid", ()), ("bpf", (0, 0, 0)), ("keyctl", (0, 0)),
    ("io_uring_setup", (1, 0)), ("memfd_create", (0, 0)), ("userfaultfd", (0,)), ("personality", (0xFFFFFFFF,)), ("mlock", (0, 0)),
    ("inotify_init1", (0,)), ("sched_setaffinity", (0, 0, 0)), ("sched_setaffinity", (1, 0, 0)), ("prctl", (22, 1)), ("prctl", (4, 1)),
    ("prctl", (16, 0)), ("clock_gettime", (U64, 0)), ("kill", (U64, 0)), ("setpriority", (0, 0, 0)), ("timerfd_create", (1, 0)),
    ("pidfd_open", (1, 0)), ("openat2", (0, 0, 0, 0)), ("clone3", (0, 0)), ("fcntl", (0, 1, 0)), ("fcntl", (0, 6, 0)), ("chroot", (0,)),
    ("mount", (0, 0, 0, 0, 0)), ("swapon", (0, 0)), ("landlock_create_ruleset", (0, 0, 1)),
]  # fmt: skip
OTHERS = [
    Act("fork"), Act("thread"), Act("connect", host="127.0.0.1", port=9), Act("connect", host="::1", port=9),
    Act("connect", host="192.0.2.1", port=9), Act("listen", host="0.0.0.0", port=40404),
]  # fmt: skip


def tried(pool: Pool, act: Act, before: list[str] | None = None) -> int:
    """The errno of the act in a worker of the pool."""
    call = act.call or SystemCall(())
    arguments = [syscall_table(platform.machine())[call.names[0]], *call.arguments] if call.names else []
    signed = [value - (1 << 64) if value >> 63 else value for value in arguments]
    return int(pool.call("attempt", {"kind": act.kind, "path": act.path, "host": act.host, "port": act.port, "arguments": signed,
                                     "before": before or []}))


def compare(pool: Pool, act: Act, before: list[str] | None = None) -> Verdict:
    verdict = judge(pool._core.supervisor.policy, act, look_here)
    met = tried(pool, act, before)
    told = f"{said(act)}: told {verdict}, met {errno.errorcode.get(met, met)}"
    if act.kind == "call":  # what lets a call through may still find its arguments wanting
        assert verdict.allowed == (met not in (errno.EPERM, errno.ENOSYS)), told
    else:
        assert verdict.allowed == (met == 0), told
    if not verdict.allowed and verdict.errno:
        assert verdict.errno == met, told
    return verdict


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize(("kind", "path"), ON_FILES)
def test_an_answer_on_a_path_of_this_machine_is_what_happens(
    pools: dict[str, Pool], place: Place, name: str, kind: str, path: str
) -> None:
    compare(pools[name], Act(kind, os.path.join(place.shown.parent, path)))


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize(("kind", "path"), ELSEWHERE)
def test_an_answer_on_a_system_path_is_what_happens(pools: dict[str, Pool], name: str, kind: str, path: str) -> None:
    if not os.path.exists(os.path.dirname(path)):
        pytest.skip(f"this machine has no {path}")
    compare(pools[name], Act(kind, path))


@pytest.mark.parametrize(
    ("name", "kind", "path", "before"),
    [pytest.param(name, *act, id=f"{act[0]}-{name}") for act in IN_SCRATCH for name in CONFIGURATIONS
     if name == "scratch" or not act[2]],  # without a scratch nothing can be there before
)
def test_an_answer_on_the_scratch_is_what_happens(
    pools: dict[str, Pool], name: str, kind: str, path: str, before: list[str]
) -> None:
    compare(pools[name], Act(kind, path.format(kind)), [entry.format(kind) for entry in before])


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("act", OTHERS, ids=said)
def test_an_answer_on_processes_and_networks_is_what_happens(pools: dict[str, Pool], name: str, act: Act) -> None:
    compare(pools[name], act)


@pytest.mark.parametrize(
    ("name", "call", "arguments"),
    [pytest.param(name, *made, id=f"{made[0]}-{i}-{name}") for i, made in enumerate(CALLS) for name in CONFIGURATIONS
     if name != "default" or made[0] not in SCOPED],
)
def test_an_answer_on_a_system_call_is_what_happens(
    pools: dict[str, Pool], name: str, call: str, arguments: tuple[int, ...]
) -> None:
    compare(pools[name], Act("call", call=SystemCall((call,), arguments)))


def sandbox_with(place: Place, options: dict[str, Any], changes: tuple[Change, ...]) -> Sandbox:
    """The configuration with what an answer proposes."""
    wanted = {**options, "read": [place.shown]}
    for change in changes:
        key = change.key.removeprefix("sandbox.")
        wanted[key] = [*wanted["read"], change.value] if key == "read" else change.value
    return Sandbox(**wanted)


@pytest.mark.parametrize("name", ["strict", "default"])
def test_a_proposed_change_allows_the_act_and_each_part_of_it_is_needed(pools: dict[str, Pool], place: Place, name: str) -> None:
    proposals: dict[tuple[Change, ...], list[Act]] = {}
    wanted = [Act(kind, os.path.join(place.shown.parent, path)) for kind, path in ON_FILES]
    wanted += [Act(kind, path.format(f"proposed {kind}")) for kind, path, before in IN_SCRATCH if not before] + OTHERS
    for act in wanted:
        verdict = judge(pools[name]._core.supervisor.policy, act, look_here)
        if verdict.changes and verdict.changes[0].value != "FILE":
            proposals.setdefault(verdict.changes, []).append(act)
    assert len(proposals) >= 3
    for changes, allowed in proposals.items():
        with Pool(WORKER, sandbox=sandbox_with(place, CONFIGURATIONS[name], changes)) as pool:
            assert {said(act): tried(pool, act) for act in allowed} == {said(act): 0 for act in allowed}, changes
        for left_out in changes if len(changes) > 1 else ():
            rest = tuple(change for change in changes if change != left_out)
            if rest[0].key == "sandbox.scratch":
                continue  # refused by the configuration: strict has no scratch
            with Pool(WORKER, sandbox=sandbox_with(place, CONFIGURATIONS[name], rest)) as pool:
                assert all(tried(pool, act) for act in allowed), (changes, rest)
