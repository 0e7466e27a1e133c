"""Runs a worker's calls once, in a throw-away pool that notes what they ask of the kernel.

    present profile ──▶ observing(): what it refuses, and whatever reaches a path or an address, is asked of the supervisor
    throw-away pool ──▶ Observer.asked(): noted, then let through or refused ──▶ Run: what was asked, how each call ended

Rules and reasons (ADR 0010):
* The pool is made for one run, serves nobody else, and has every layer that the machine grants, whatever the configuration says:
  namespaces for processes, mounts and network are required. What is let through is system calls, never a file or a network.
* Let through are the calls that profile `default` allows and those of WIDER, as they reach no further than the worker itself and its
  scratch. All else keeps the answer of the present profile, and is noted.
* The zygote's listener is used: a task can have only one. Arguments in memory are read while the caller waits, and are fit to
  observe and never to decide by.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pyproc.config.options import LAYERS, Sandbox
from pyproc.errors import CallError, ProtectionUnavailable, PyprocError
from pyproc.host.notify import Notification
from pyproc.policy.watched import ADDRESSED, WATCHED, acts_of
from pyproc.pool import options as pool_options
from pyproc.pool.sync import Pool
from pyproc.sandbox import profile
from pyproc.sandbox.acts import Act, SystemCall
from pyproc.sandbox.oci_export import to_oci
from pyproc.sandbox.rules import ACTION_MASK, ALLOW, ERRNO, LOG, NOTIFY, Profile, Rule, syscall_table
from pyproc.sandbox.verdict import Change
from pyproc.supervisor.spec import WorkerSpec
from pyproc_wire.codec import MESSAGEPACK

IMPORT: Final = "import"
SEEN_MAX: Final = 20_000  # distinct acts of a run; a program beyond that is looked at in parts
SCRATCH: Final = 64 << 20  # bytes of a throw-away scratch where the configuration gives none
NEEDED_LAYERS: Final = ("seccomp", "mount_namespace", "pid_namespace", "network_namespace", "ipc_namespace")
WIDER: Final = {
    "fcntl": "file locks, which sqlite3 takes; one on a shared file makes others wait",
    "flock": "file locks; one on a shared file makes others wait", "memfd_create": "memory as a file",
    "chmod": "modes of its own files",
    "fchmod": "modes of its own files", "fchmodat": "modes of its own files", "utimensat": "times of its own files",
    "inotify_init1": "waiting for files to change", "inotify_add_watch": "waiting for files to change",
    "inotify_rm_watch": "waiting for files to change", "mlock": "memory that is not swapped", "munlock": "memory that is not swapped",
    "setxattr": "attributes of its own files", "getxattr": "attributes of files",
    "lgetxattr": "attributes of files", "listxattr": "attributes of files", "llistxattr": "attributes of files",
    "getpriority": "its own priority", "sched_getattr": "its own scheduling", "fadvise64": "advice on reading",
    "readahead": "advice on reading", "sync_file_range": "files of its own", "mincore": "which pages are in memory",
}
"""What a learning run lets through beyond `default`: calls that act on the worker itself and on files that it may write."""


class Seen(NamedTuple):
    """One thing that was asked of the kernel: `where` is IMPORT or a method; `call` is the system call's name."""

    where: str
    call: str
    act: Act


class Ended(NamedTuple):
    """How one call ended: `code` "" for a result, whose `digest` tells it from another."""

    method: str
    code: str = ""
    reason: str = ""
    digest: str = ""
    text: str = ""

    @property
    def kind(self) -> tuple[str, str, str]:
        """What is compared between runs whose results may differ."""
        return self.method, self.code, self.reason


@dataclass
class Run:
    """Of all calls: what was asked, how each ended, which limits and modules the log says were missed. `failure`: of the start."""

    seen: dict[Seen, None] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    changes: list[tuple[str, Change]] = field(default_factory=list)
    failure: str = ""
    overflow: bool = False


class Call(NamedTuple):
    """One call to make."""

    method: str
    body: Any = None


def observing(present: Profile) -> Profile:
    """`present`, but what it refuses and whatever names a path or an address is asked of the supervisor first."""
    table = syscall_table(present.machine)
    asked = tuple(Rule(name, table[name], NOTIFY, (), "observed") for name in (*WATCHED, *ADDRESSED) if name in table)
    refused = present.default & ACTION_MASK == ERRNO
    rules = tuple(replace(r, action=NOTIFY) if _refuses(r.action) else r for r in present.rules)
    return replace(present, default=NOTIFY if refused else present.default, rules=(*asked, *rules))


def _refuses(action: int) -> bool:
    """A refusal; ENOSYS is an answer, after which libraries do it another way."""
    return action & ACTION_MASK == ERRNO and action & 0xFFFF != errno.ENOSYS


class Observer:
    """Notes what is asked, and lets through what the widest policy that may be proposed would allow."""

    def __init__(self, present: Profile, run: Run) -> None:
        self.where = IMPORT
        self._present, self._widest = present, profile.shipped("default", machine=present.machine)
        self._run = run

    def asked(self, call: Notification, name: str, *, importing: bool) -> int:
        """0 to let the call go on, else an errno."""
        where = IMPORT if importing else self.where
        try:
            found = acts_of(call, name)
        except OSError:
            found = []  # its memory went away, and so does it
        refusal = _errno(self._present, name, call.arguments)
        if name and not found and (refusal or not (name in WATCHED or name in ADDRESSED)):
            found.append(Act("call", call=SystemCall((name,), call.arguments)))
        for act in found:
            if len(self._run.seen) < SEEN_MAX:
                self._run.seen.setdefault(Seen(where, name, act))
            else:
                self._run.overflow = True
        if not refusal or name in WIDER or not _errno(self._widest, name, call.arguments):
            return 0
        return refusal


def _errno(rules: Profile, name: str, arguments: Sequence[int]) -> int:
    """What a profile answers, 0 for a call that it lets through."""
    if not name:
        return errno.ENOSYS
    action = rules.decide(name, arguments)
    if action & ACTION_MASK in (ALLOW, LOG):
        return 0
    return action & 0xFFFF if action & ACTION_MASK == ERRNO else errno.EPERM


class _SpecPool(Pool):
    """A pool from a specification, which may hold what no option of a pool does."""

    def __init__(self, spec: WorkerSpec, timeout: float) -> None:
        self._open(pool_options.Options(spec.name, "worker", timeout, pool_options.QUEUE_DEFAULT, 0, spec))


class Missed(logging.Handler):
    """Collects from the log which keys a denial says would help."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.where = IMPORT

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the keys."""
        self._run.changes += [(self.where, change) for change in getattr(record, "changes", ())]


def observe(spec: WorkerSpec, calls: Sequence[Call], timeout: float) -> Run:
    """Make `calls` in a throw-away pool that observes. Raises ProtectionUnavailable where the machine has no such sandbox."""
    present = profile.named(spec.sandbox.profile)
    run = Run()
    observer = Observer(present, run)
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="ascii") as file:
        file.write(to_oci(observing(present)))
        file.flush()
        wanted = {name: "require" if name in NEEDED_LAYERS else "prefer" for name in LAYERS}
        sandbox = Sandbox(file.name, read=spec.sandbox.read, scratch=spec.sandbox.scratch or SCRATCH, layers=wanted)
        _make(replace(spec, sandbox=sandbox, observer=observer, workers=1), calls, timeout, run)
    return run


def ordinary(spec: WorkerSpec, calls: Sequence[Call], timeout: float) -> Run:
    """Make `calls` in a pool such as the configuration describes, to see whether it serves them."""
    run = Run()
    _make(replace(spec, workers=1), calls, timeout, run)
    return run


def _make(spec: WorkerSpec, calls: Sequence[Call], timeout: float, run: Run) -> None:
    missed = Missed(run)
    log = logging.getLogger("pyproc")
    log.addHandler(missed)
    try:
        with _SpecPool(spec, timeout) as pool:
            for call in calls:
                missed.where = call.method
                if isinstance(spec.observer, Observer):
                    spec.observer.where = call.method
                run.ended.append(_called(pool, call))
    except ProtectionUnavailable:
        raise
    except PyprocError as error:  # the script cannot be loaded, or its process dies at each start
        run.failure = str(error)
    finally:
        log.removeHandler(missed)


def _called(pool: Pool, call: Call) -> Ended:
    try:
        value = pool.call(call.method, call.body)
    except CallError as error:
        return Ended(call.method, error.code, error.reason or "", text=str(error))
    return Ended(call.method, digest=hashlib.sha256(MESSAGEPACK.encode_value(value)).hexdigest())
