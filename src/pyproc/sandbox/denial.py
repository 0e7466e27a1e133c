"""A refusal or a death, told to the operator: which layer, what was refused, the smallest change that would allow it. Pure.

    denial(policy, refused, bound)  ──▶ Denial    as the worker reports it: the act whose predicted errno is the reported one
    death(policy, reason)           ──▶ Denial    by the kernel's evidence

Rules and reasons:
* What a worker reports is a hint and is marked untrusted (ADR 0009). It is compared with the plan; nothing of it is opened, run
  or looked up on this machine, and its texts are bounded and escaped.
* An errno that no layer would give here is no denial: a missing file in a readable folder is the program's own affair.
* The exception does not tell whether a file was opened for reading or for writing: both are told where they differ.
"""

from __future__ import annotations

import errno
import posixpath
from typing import Final, NamedTuple

from pyproc.config.units import time_text
from pyproc.sandbox import acts, derive, profile
from pyproc.sandbox.acts import Act
from pyproc.sandbox.explain import NO_NETWORK, judge
from pyproc.sandbox.paths import beneath
from pyproc.sandbox.reach import NO_EXEC
from pyproc.sandbox.rules import ACTION_MASK, ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, NOTIFY, Profile, syscall_table
from pyproc.sandbox.verdict import Change, Policy, Verdict
from pyproc_wire.errors import printable
from pyproc_wire.messages import Refused

WORKER, KERNEL = "worker, untrusted", "kernel"
SHOWN_CHARS: Final = 300  # of a path or a module's name
SHOWN_MAX: Final = 1000  # of a whole text
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
SIZES: Final = ("memory", "file_size", "output", "request", "response")
UNITS: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
SIGNALS: Final = ("kill", "tgkill", "pidfd_send_signal")
ENDING: Final = {"oom": "memory", "cpu_limit": "cpu_time", "file_size": "file_size", "output_limit": "output"}  # reason -> limit
LEARN: Final = "`pyproc policy learn` finds the system call"


class Denial(NamedTuple):
    """`layer` of the sandbox, or limits, or file mode; `subject`: the system call or the path and what was to be done with it;
    `change`: what would allow it, in words, and `changes` the keys of it, together or one of them."""

    layer: str
    subject: str
    change: str
    reported_by: str = WORKER
    changes: tuple[Change, ...] = ()

    @property
    def advice(self) -> str:
        """The change as a sentence."""
        return advice(self.change)

    def document(self) -> dict[str, str]:
        """For JSON."""
        return {name: getattr(self, name) for name in ("layer", "subject", "change", "reported_by")}


def advice(change: str) -> str:
    """A change as a sentence."""
    return change if change.startswith("no change ") else f"what would allow it: {change}"


def denial(policy: Policy, refused: Refused | None, bound: str | None = None) -> Denial | None:
    """Why a call failed, if a layer or a limit is the reason. `bound`: the limit that the worker says was met."""
    found = _reported(policy, refused, bound)
    if found is None:
        return None
    return found._replace(subject=printable(found.subject, SHOWN_MAX), change=printable(found.change, SHOWN_MAX))


def _reported(policy: Policy, refused: Refused | None, bound: str | None) -> Denial | None:
    if refused is None:
        return None if bound is None else _limit(policy, bound)
    if refused.asked == "import":
        return _module(policy, refused.path or "")
    if refused.errno == errno.ENOENT and refused.path and not refused.path.startswith("/") and "mount_namespace" in policy.layers:
        subject = f"{_shown(refused)}: it does not begin with / and a worker's folder is /, not yours"
        return Denial("mount_namespace", subject, "list its folder in sandbox.read, and name it in the script from / on")
    limited = _limited(policy, refused, bound)
    if limited is not None:
        return limited
    name = _system_call(refused)
    if name:
        return _call(policy, name, refused)
    refusals = _candidates(policy, refused)
    if refusals and refused.asked in acts.PROGRAMS and "landlock" in policy.layers:
        return _told(refusals)._replace(change=f"no change allows it: {NO_EXEC}", changes=())
    found = _told(refusals) if refusals else _unmatched(policy, refused)
    if found is not None and "sandbox.read = " in found.change and refused.errno == errno.ENOENT:
        return found._replace(change=f"{found.change}, if it is there")
    return found


def death(policy: Policy, reason: str) -> Denial | None:
    """Why a worker was ended, if a layer or a limit is the reason."""
    if reason == "seccomp":
        ends = sorted({r.name for f in policy.filters for r in f.rules if r.action & ACTION_MASK in (KILL_PROCESS, KILL_THREAD)})
        own = f", or one of {', '.join(ends)}, to which the profile answers by ending the process" if ends else ""
        return Denial("seccomp", f"a system call of a foreign architecture{own}", "no change allows foreign architectures"
                      + ("; allow the call in a profile of your own" if ends else ""), KERNEL)
    if reason == "process_limit":
        change = str(Change("sandbox.profile", "default")) if policy.sandbox.profile == "strict" else f"none is known; {LEARN}"
        return Denial("seccomp", "a fork, or another step that only the supervisor grants, asked for again and again", change, KERNEL)
    told = _limit(policy, ENDING[reason]) if reason in ENDING else None
    return None if told is None else told._replace(reported_by=KERNEL)


def limit_met(policy: Policy, limit: str) -> str:
    """A limit or a bound that a call has met, for its caller: the key, the value, the remedy; "" where no limit is the reason."""
    found = _limit(policy, limit)
    if found is None:
        return ""
    keys = " or ".join(change.key for change in found.changes)
    return f"{found.subject}; use less, or raise {keys}"


def doubled(policy: Policy, limit: str) -> Change:
    """The limit with twice its value."""
    return Change(f"limits.{limit}", limit_text(limit, 2 * getattr(policy.limits, limit)))


def limit_text(limit: str, value: float) -> str | int:
    """A limit's value as it is written in pyproc.toml."""
    if limit == "cpu_time":
        return time_text(value)
    return size_text(int(value)) if limit in SIZES else int(value)


def size_text(size: int) -> str:
    """As it is written in pyproc.toml."""
    return next((f"{size // unit} {name}" for name, unit in UNITS if size >= unit and size % unit == 0), f"{size} B")


# Limits.


def _limit(policy: Policy, bound: str) -> Denial | None:
    if bound == "processes":
        subject = f"more tasks than limits.threads {policy.limits.threads} and limits.processes {policy.limits.processes} together"
        tasks = (doubled(policy, "threads"), doubled(policy, "processes"))
        if "cgroup" in policy.layers:
            return _raise("rlimits", subject, *tasks)
        # memory is RLIMIT_AS there, and the stack and the heap of a thread are address space
        return _raise("rlimits", f"{subject}, or than limits.memory has address space for", *tasks, doubled(policy, "memory"))
    if bound == "scratch":
        changes = (*_more_room(policy), doubled(policy, "file_size"))
        room = policy.sandbox.scratch
        full = f"the scratch is full, of {size_text(room)} or of {policy.limits.scratch_files} files, or " if room else ""
        return _raise("limits", f"{full}a file met limits.file_size, which is {size_text(policy.limits.file_size)}", *changes)
    if bound not in ("memory", "open_files", "response", "cpu_time", "file_size", "output"):
        return None
    value = getattr(policy.limits, bound)
    raised = doubled(policy, bound)
    shown = time_text(value) if bound == "cpu_time" else size_text(value) if isinstance(raised.value, str) else str(value)
    return _raise("limits", f"limits.{bound}, which is {shown}", raised)


def _raise(layer: str, subject: str, *changes: Change) -> Denial:
    return Denial(layer, subject, ", or ".join(map(str, changes)), WORKER, changes)


def _more_room(policy: Policy) -> tuple[Change, ...]:
    room = policy.sandbox.scratch
    return (Change("sandbox.scratch", size_text(2 * room)), doubled(policy, "scratch_files")) if room else ()


def _limited(policy: Policy, refused: Refused, bound: str | None) -> Denial | None:
    """A refusal whose errno stands for a limit."""
    room, path = policy.sandbox.scratch, _shown(refused)
    if refused.errno == errno.EMFILE:
        return _limit(policy, "open_files")
    if refused.errno == errno.ENOMEM:
        return _limit(policy, "memory")
    if refused.errno == errno.EFBIG:
        subject = f"writing {path}: limits.file_size is {size_text(policy.limits.file_size)}"
        return _raise("limits", subject, doubled(policy, "file_size"))
    if refused.errno in FULL and room:
        subject = f"writing {path}: the scratch is full, of {size_text(room)} or of {policy.limits.scratch_files} files"
        return _raise("limits", subject, *_more_room(policy))
    if refused.errno == errno.EAGAIN and bound == "processes":
        return _limit(policy, bound)
    return None


# What the layers refuse.


def _candidates(policy: Policy, refused: Refused) -> list[tuple[Act, Verdict]]:
    """The acts that it may have been and that this policy refuses with this errno, the likeliest first."""
    found: list[tuple[Act, Verdict]] = []
    for act in _acts(refused):
        verdict = judge(policy, act)
        if not verdict.allowed and verdict.errno == refused.errno:
            found.append((act, verdict))
    return found


def _acts(refused: Refused) -> list[Act]:
    path, asked = _shown_path(refused), refused.asked or ""
    kinds = acts.ASKED.get(asked, () if asked or not path else acts.ASKED["open"])
    return [Act(kind, path) for kind in kinds if path or kind not in acts.ON_PATHS]


def _system_call(refused: Refused) -> str:
    """The system call behind who asked, where it is none of the acts that are known."""
    asked = refused.asked or ""
    name = acts.ASKED_CALLS.get(asked, asked)
    return name if asked not in acts.ASKED and name in syscall_table("x86_64") else ""


def _call(policy: Policy, name: str, refused: Refused) -> Denial | None:
    """A call with arguments that nobody told."""
    if name == "mmap" and refused.errno == errno.EACCES and "mdwe" in policy.layers:
        return Denial("mdwe", "memory that is writable and executable at once", "no change allows it")
    if "seccomp" not in policy.layers or not _can_answer(policy.filters, name, refused.errno):
        return None
    if name == "socket" and "network_namespace" in policy.layers:
        change = f"no change allows a network: {NO_NETWORK}; sockets to the worker itself: {Change('sandbox.profile', 'default')}"
        return Denial("seccomp", _subject(policy, name, refused), change)
    if name in SIGNALS and "landlock" in policy.layers and _allowed_somehow(policy.filters[1], name):
        return Denial("landlock", "a signal to a process that is not the worker's own", "no change allows it")
    subject = _subject(policy, name, refused)
    if name in derive.CLOSED:
        return Denial("seccomp", subject, "no change allows it: a step of confinement that only the supervisor grants")
    if policy.sandbox.profile == "strict" and _allowed_somehow(profile.named("default"), name):
        return Denial("seccomp", subject, f"{Change('sandbox.profile', 'default')}, which allows it with some arguments")
    mine = _allowed_somehow(policy.filters[1], name)
    change = f"a profile of your own with {name} allowed{' for these arguments too' if mine else ''}"
    return Denial("seccomp", subject, change)


def _subject(policy: Policy, name: str, refused: Refused) -> str:
    return f"system call {name}: profile {policy.sandbox.profile} answers {errno.errorcode[refused.errno]}"


def _allowed_somehow(rules: Profile, name: str) -> bool:
    return any(r.name == name and r.action & ACTION_MASK in (ALLOW, LOG) for r in rules.rules)


def _told(refusals: list[tuple[Act, Verdict]]) -> Denial:
    act, verdict = refusals[0]
    other = next((v for a, v in refusals[1:] if a.kind == "write" and v.change != verdict.change), None)
    if act.kind == "open" and other is not None:
        subject = f"opening {printable(act.path, SHOWN_CHARS)!r}: {verdict.why}"
        return Denial(verdict.layer, subject, f"to read it, {verdict.change}; to write it, {other.change}")
    subject = "the network" if act.kind in ("connect", "listen") else acts.said(act)
    return Denial(verdict.layer or "file mode", f"{subject}: {verdict.why}", verdict.change)


def _unmatched(policy: Policy, refused: Refused) -> Denial | None:
    """No act that is known gives this errno here: what can be said of it by itself."""
    path, asked = _shown(refused), printable(refused.asked or "a function")
    if refused.errno in (errno.EPERM, errno.ENOSYS) and "seccomp" in policy.layers:
        change = f"{Change('sandbox.profile', 'default')}, if that allows it; {LEARN}" if policy.sandbox.profile == "strict" else LEARN
        return Denial("seccomp", f"a system call behind {asked}: {errno.errorcode[refused.errno]}", change)
    if refused.errno == errno.EACCES and refused.path and judge(policy, Act("open", _shown_path(refused))).allowed:
        return Denial("file mode", f"{path} is shown to workers and refuses uid {policy.view.uid} by its own mode",
                      "change the file's mode or owner")
    if refused.errno == errno.EACCES and "landlock" in policy.layers:
        return Denial("landlock", f"{asked} on {path}", f"no change is known; {LEARN}")
    if refused.errno == errno.EROFS:
        return Denial("mount_namespace", f"writing {path}, which is shown read-only", "no change allows it: workers write below "
                      f"{policy.view.scratch} only")
    if refused.errno == errno.EXDEV and "landlock" in policy.layers:
        return Denial("landlock", f"moving or linking {path} into another folder", "no change allows it: copy the file")
    if refused.errno == errno.ENETUNREACH and "network_namespace" in policy.layers:
        return Denial("network_namespace", "the network: no route leads out", "no change allows it: workers have no network")
    return None


def _can_answer(filters: tuple[Profile, ...], name: str, code: int) -> bool:
    """Whether a filter has this errno for that call, whatever its arguments."""
    for filter_ in filters:
        rules = [r for r in filter_.rules if r.name == name]
        actions = [r.action for r in rules] + ([] if any(not r.conditions for r in rules) else [filter_.default])
        for action in actions:
            kind = action & ACTION_MASK
            if (kind == ERRNO and action & 0xFFFF == code) or (kind == NOTIFY and code == errno.EPERM):
                return True
    return False


def _module(policy: Policy, name: str) -> Denial | None:
    """A module that was not found: one beside the script is importable only where its folder is listed."""
    folder = posixpath.dirname(policy.script)
    if any(beneath(folder, path) for path in policy.sandbox.read):
        return None
    subject = f"module {printable(name, SHOWN_CHARS)!r} was not found; the script's folder is not shown to workers"
    change = Change("sandbox.read", folder)
    return Denial("mount_namespace", subject, f"{change}, if the module stands beside the script; else install it", WORKER, (change,))


def _shown_path(refused: Refused) -> str:
    return "" if refused.path is None else posixpath.normpath(posixpath.join("/", refused.path.replace("\0", "\\0")))


def _shown(refused: Refused) -> str:
    return repr(printable(refused.path, SHOWN_CHARS)) if refused.path else "a file"
