"""May a worker do this, and if not: which layer refuses it, and the smallest change of the policy that would allow it. Pure.

    judge(policy, act, look) ──▶ Verdict

It answers questions before anything runs (`pyproc policy explain`), explains what a worker reports (`denial`), and tells which of
the calls that were observed need a change (`pyproc policy learn`).

Rules and reasons:
* The layers are asked in the order in which the kernel asks them: the filters first, then the path's way through the mounted
  root, then the mount's own flags, then modes and Landlock. The first refusal is the answer, as it is the errno that is seen.
* A change is only named if the same act is allowed with it; else the reason why none helps. Switching a layer off is never
  proposed: that is no smallest change.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from pyproc.sandbox import acts, derive
from pyproc.sandbox.acts import Act, SystemCall
from pyproc.sandbox.paths import WRITE, Look, walk
from pyproc.sandbox.reach import reached, written
from pyproc.sandbox.rules import ACTION_MASK, ALLOW, ERRNO, LOG, NOTIFY, TRACE, Condition, Rule, syscall_table
from pyproc.sandbox.verdict import Change, Policy, Verdict, changed

SHOWN_CONDITIONS: Final = 6  # rules of one call that an answer spells out
NO_NETWORK: Final = "workers have no network in any configuration with all layers on"


class Answer(NamedTuple):
    """Of the filters to one system call: `errno` 0 lets it through, -1 ends the process."""

    errno: int
    rule: Rule | None = None


def answer(policy: Policy, name: str, arguments: tuple[int, ...]) -> Answer:
    """The strictest of both filters, as the kernel combines them (seccomp(2), filter return values)."""
    if "seccomp" not in policy.layers:
        return Answer(0)
    number = syscall_table(policy.filters[0].machine)[name]
    six = (*arguments, *[0] * 6)
    found: list[tuple[int, int, Rule | None]] = []
    for filter_ in policy.filters:
        rule = next((r for r in filter_.rules if r.number == number and all(c.holds(six) for c in r.conditions)), None)
        action = rule.action if rule is not None else filter_.default
        if name == "tgkill" and rule is not None and rule.action & ACTION_MASK == NOTIFY:
            continue  # asked of the supervisor, who allows a signal to oneself
        found.append((*_weight(action), rule))
    _, code, rule = max(found, key=lambda item: item[0], default=(0, 0, None))
    return Answer(code, rule)


def _weight(action: int) -> tuple[int, int]:
    """How strict an action is, and what the caller sees: what is asked of the supervisor is refused to a worker that serves."""
    kind = action & ACTION_MASK
    if kind in (ALLOW, LOG):
        return 0, 0
    if kind in (NOTIFY, TRACE):
        return 1, errno.EPERM if kind == NOTIFY else errno.ENOSYS
    return (2, action & 0xFFFF) if kind == ERRNO else (3, -1)


def judge(policy: Policy, act: Act, look: Look | None = None) -> Verdict:
    """Whether a worker that serves may do `act`, by the layers in force. `look`: what this machine has at a path."""
    for call in acts.system_calls(act):
        verdict = _filtered(policy, act, call, look)
        if verdict is not None:
            return verdict
    if act.kind in ("connect", "listen"):
        return _networked(policy, act, look)
    if act.kind in acts.ON_PATHS:
        return reached(policy, act, look, judge)
    limits = {"fork": "limits.processes + limits.threads", "thread": "limits.threads + limits.processes"}
    if act.kind in limits:
        return Verdict(True, f"the profile allows it; {limits[act.kind]} tasks in one worker")
    return Verdict(True, "the profile allows it; what it acts on is decided by the other layers")


# The filters.


def _filtered(policy: Policy, act: Act, call: SystemCall, look: Look | None) -> Verdict | None:
    """The refusal of the filters, if there is one."""
    if "seccomp" not in policy.layers:
        return None
    table = syscall_table(policy.filters[0].machine)
    name = next((n for n in call.names if n in table), "")
    if not name:
        return Verdict(False, f"this machine has no system call {call.names[0]}", "seccomp", errno.ENOSYS, (), "it does not exist here")
    found = answer(policy, name, call.arguments)
    if not found.errno:
        return None
    if found.rule is not None and found.rule.action & ACTION_MASK == NOTIFY:
        why = f"{name} is asked of the supervisor, who grants it to a worker in the making and to no worker that serves"
        return Verdict(False, why, "seccomp", found.errno, *_profile_change(policy, act, name, look))
    outcome = "ends the process" if found.errno < 0 else f"answers {errno.errorcode.get(found.errno, str(found.errno))}"
    why = f"profile {policy.sandbox.profile} {outcome} to {name}{_condition(policy, name)}"
    changes, why_none = _profile_change(policy, act, name, look)
    return Verdict(False, why, "seccomp", found.errno, changes, why_none)


def _condition(policy: Policy, name: str) -> str:
    """Where the profile allows the call with other arguments: with which."""
    allowed = [r for r in policy.filters[1].rules if r.name == name and r.action & ACTION_MASK in (ALLOW, LOG) and r.conditions]
    if not allowed:
        return ""
    texts = [" and ".join(spelled(c) for c in rule.conditions) for rule in allowed[:SHOWN_CONDITIONS]]
    more = f", and {len(allowed) - SHOWN_CONDITIONS} ways more" if len(allowed) > SHOWN_CONDITIONS else ""
    return f" with these arguments; it allows it where {' or where '.join(texts)}{more}"


def spelled(c: Condition) -> str:
    """A condition in words."""
    operator = {"EQ": "==", "NE": "!=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}
    op = c.op.removeprefix("SCMP_CMP_")
    if op == "MASKED_EQ":
        return f"argument {c.index} & {c.value:#x} == {c.value_two:#x}"
    return f"argument {c.index} {operator[op]} {c.value:#x}"


def _profile_change(policy: Policy, act: Act, name: str, look: Look | None) -> tuple[tuple[Change, ...], str]:
    """The profile under which the whole act is allowed, with what else it then needs; else why there is none."""
    if name in derive.CLOSED:
        return (), f"{name} is a step of confinement that only the supervisor grants"
    if name in ("prctl", "clone", "clone3") and act.kind == "call":
        return (), f"with these arguments {name} would undo or pass by a protection, in any profile"
    if policy.sandbox.profile == "strict":
        wider = changed(policy, (Change("sandbox.profile", "default"),))
        under = judge(wider, act, look)
        if under.allowed:
            return (Change("sandbox.profile", "default"),), ""
        if under.layer != "seccomp":
            needed = (Change("sandbox.profile", "default"), *under.changes)
            return (needed, "") if under.changes else ((), under.why_none)
    base = "strict" if policy.sandbox.profile == "strict" else policy.sandbox.profile
    note = f"a file of your own: {base} with {name} allowed; see how-to/write-a-profile"
    return (Change("sandbox.profile", "FILE", note),), ""


# Networks.


def _networked(policy: Policy, act: Act, look: Look | None) -> Verdict:
    if act.path and act.kind == "connect":
        return _socket_file(policy, act, look)
    if act.path:
        return written(policy, Act("mkfifo", act.path), walk(policy.view, act.path, look))
    if "landlock" in policy.layers:
        return Verdict(False, "TCP is not granted", "landlock", errno.EACCES, (), NO_NETWORK)
    if "network_namespace" in policy.layers and act.kind == "connect":
        code = errno.EADDRNOTAVAIL if act.host == "::1" else errno.ENETUNREACH
        return Verdict(False, "no route leads out", "network_namespace", code, (), NO_NETWORK)
    return Verdict(True, "no layer that closes the network is in force")


def _socket_file(policy: Policy, act: Act, look: Look | None) -> Verdict:
    """connect(2) on a path looks at the socket's mode only: neither a read-only mount nor Landlock (before ABI 9) refuses it."""
    place = walk(policy.view, act.path, look)
    if place.region in ("nowhere", "root") or place.missing or place.obstacle:
        return Verdict(False, f"{place.path!r} lies outside of what workers are shown", "mount_namespace", errno.ENOENT, (),
                       "a socket of the machine shown to workers is a door out of the sandbox; talk to it outside")
    if place.found is not None and not policy.view.may(place.found, WRITE):
        return Verdict(False, f"{place.path!r} is closed to uid {policy.view.uid} by its mode", "", errno.EACCES, (),
                       "change the socket's mode")
    return Verdict(True, f"{place.path!r} is shown to workers; a socket is not made read-only by a mount")
