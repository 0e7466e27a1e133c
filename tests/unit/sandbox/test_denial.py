"""What a worker reports is hostile input: whatever it is, the explanation is a bounded line and never an error."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyproc import Limits, Sandbox
from pyproc.policy import survey
from pyproc.sandbox.denial import death, denial, doubled, limit_met
from pyproc.sandbox.paths import Found, View, walk
from pyproc.sandbox.verdict import Policy
from pyproc.supervisor.spec import WorkerSpec
from pyproc_wire.codes import WORKER_BOUNDS
from pyproc_wire.messages import Refused
from pyproc_worker.refusal import CALLABLES, REFUSALS

SHOWN_MAX = 1000  # characters of one text in the log


def policy_of(sandbox: Sandbox) -> Policy:
    return survey.in_force(WorkerSpec("pool", "/srv/code/worker.py", "", 1, sandbox, Limits(), {}, None, (), solo=False))


POLICIES = [policy_of(Sandbox("strict")), policy_of(Sandbox("default", scratch="1 MiB"))]
STEPS = ["..", ".", "", "usr", "lib", "scratch", "dev", "null", "\0", "a\nb", "\x1b[2J", "\u202e", "x" * 3000]
PATHS = st.one_of(st.none(), st.text(max_size=5000), st.lists(st.sampled_from(STEPS)).map("/".join))
ASKED = st.one_of(st.none(), st.sampled_from((*CALLABLES, "import")), st.from_regex(r"[a-z_]\w{0,60}", fullmatch=True))
ERRNOS = st.one_of(st.sampled_from(sorted(REFUSALS)), st.integers(1, 4095))


@example(POLICIES[0], errno.ENOENT, "/srv/a\nforged: yes\x1b[2J", "open", None)
@example(POLICIES[0], errno.ENOENT, "/srv/" + "x" * 4000, "open", None)
@given(policy=st.sampled_from(POLICIES), code=ERRNOS, path=PATHS, asked=ASKED, bound=st.sampled_from([None, *sorted(WORKER_BOUNDS)]))
def test_any_report_is_explained_in_bounded_printable_texts_or_not_at_all(
    policy: Policy, code: int, path: str | None, asked: str | None, bound: str | None
) -> None:
    found = denial(policy, Refused(code, path, asked), bound)
    if found is not None:
        assert all(text.isprintable() and 0 < len(text) <= SHOWN_MAX for text in found.document().values()), found


@pytest.mark.parametrize("policy", POLICIES, ids=["strict", "default"])
def test_a_report_never_leads_to_a_look_at_the_machine(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError(f"the machine was asked: {args}")

    assert policy.filters
    with monkeypatch.context() as without:
        for name in ("lstat", "stat", "readlink", "open", "listdir", "scandir"):
            without.setattr(os, name, refuse)
        for asked in ("open", "listdir", "connect", "execve", "import", "unlink"):
            for code in (errno.ENOENT, errno.EACCES, errno.EROFS):
                denial(policy, Refused(code, "/srv/x", asked))


@pytest.mark.parametrize("reason", ["oom", "cpu_limit", "file_size", "output_limit", "seccomp", "process_limit"])
def test_an_end_by_a_limit_names_its_key(reason: str) -> None:
    found = death(POLICIES[0], reason)
    assert found is not None and found.reported_by == "kernel"
    assert "limits." in found.change or "profile" in found.change or "foreign" in found.change


@pytest.mark.parametrize("reason", ["deadline", "cancelled", "signal:SIGSEGV", "exit:3", "protocol", "shutdown"])
def test_an_end_that_no_limit_made_is_not_explained(reason: str) -> None:
    assert death(POLICIES[0], reason) is None


def test_a_raised_limit_is_one_that_the_configuration_takes() -> None:
    for name in Limits.__slots__:
        if name != "cpus":
            options = {name: doubled(POLICIES[0], name).value}
            assert getattr(Limits(**options), name) == 2 * getattr(Limits(), name)


FILES = {
    "/a": Found(0o40755, 0, 0), "/a/file": Found(0o100644, 0, 0), "/a/closed": Found(0o40700, 0, 0),
    "/a/closed/file": Found(0o100644, 0, 0), "/a/up": Found(0o120777, 0, 0, "../b/file"), "/a/self": Found(0o120777, 0, 0, "self"),
    "/a/round": Found(0o120777, 0, 0, "/a/./file"), "/b": Found(0o40755, 0, 0), "/b/file": Found(0o100644, 0, 0),
    "/usr": Found(0o40755, 0, 0), "/usr/lib": Found(0o40755, 0, 0), "/usr/lib/c": Found(0o100644, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize(("path", "where"), [
    ("/a/file", ("/a/file", "mounted", False)), ("/a/up", ("/b/file", "nowhere", False)), ("/a/round", ("/a/file", "mounted", False)),
    ("/a/none", ("/a/none", "mounted", True)), ("/a/none/x", ("/a/none/x", "mounted", True)),
    ("/lib/c", ("/usr/lib/c", "mounted", False)), ("/usr", ("/usr", "root", False)), ("/", ("/", "root", False)),
    ("a/file", ("/a/file", "mounted", False)), ("/b/file", ("/b/file", "nowhere", False)),
    ("/a/../../a/file", ("/a/file", "mounted", False)), ("/scratch/x", ("/scratch/x", "scratch", False)),
    ("/dev/null", ("/dev/null", "device", False)),
])  # fmt: skip
def test_a_path_is_followed_as_a_worker_would(path: str, where: tuple[str, str, bool]) -> None:
    view = View(True, ("/a", "/usr/lib"), ("/dev/null",), {"/lib": "usr/lib"}, "/scratch", 1000, 1000, frozenset())
    place = walk(view, path, FILES.get)
    assert (place.path, place.region, place.missing) == where and not place.obstacle


@pytest.mark.parametrize(("path", "code"), [("/a/self", errno.ELOOP), ("/a/closed/file", errno.EACCES)])
def test_a_path_that_is_not_reached_says_why(path: str, code: int) -> None:
    view = View(True, ("/a",), (), {}, "/scratch", 1000, 1000, frozenset())
    place = walk(view, path, FILES.get)
    assert place.errno == code and place.obstacle


@pytest.mark.parametrize(("met", "told"), [
    ("memory", "limits.memory, which is 1 GiB; use less, or raise limits.memory"),
    ("open_files", "limits.open_files, which is 128; use less, or raise limits.open_files"),
    ("cpu_time", "limits.cpu_time, which is 60 s; use less, or raise limits.cpu_time"),
    ("scratch", "the scratch is full, of 4 MiB or of 1000 files, or a file met limits.file_size, which is 64 MiB; use less, or raise "
     "sandbox.scratch or limits.scratch_files or limits.file_size"),
    ("queue", ""),
])  # fmt: skip
def test_a_caller_is_told_which_limit_was_met(met: str, told: str) -> None:
    assert limit_met(policy_of(Sandbox("default", scratch="4 MiB")), met) == told
