"""What mounts, file modes and Landlock say of an act on a path, in the order in which the kernel asks them. Pure."""

from __future__ import annotations

import errno
import posixpath
import stat
from collections.abc import Callable
from typing import Final

from pyproc.sandbox import acts, secrets
from pyproc.sandbox.acts import Act
from pyproc.sandbox.paths import READ, SEARCH, WRITE, Look, Place, beneath, led_to, shown_for, walk
from pyproc.sandbox.verdict import Change, Policy, Verdict, changed

SCRATCH_DEFAULT: Final = "64 MiB"
NO_EXEC: Final = "Landlock grants workers no right to execute programs"
Judge = Callable[[Policy, Act, Look | None], Verdict]


def reached(policy: Policy, act: Act, look: Look | None, judge: Judge) -> Verdict:
    """What mounts, modes and Landlock say of an act on a path. `judge` asks again under a changed policy."""
    follow = act.kind not in ("remove", "rename", "symlink", "link")
    place = walk(policy.view, act.path, look, follow=follow)
    shown = repr(place.path)
    if place.obstacle:
        return Verdict(False, place.obstacle, "", place.errno, (), "change the folder or the link, or list the path by itself")
    if place.region == "nowhere":
        return _outside(policy, act, place, look, judge)
    if place.missing and not (act.writes and walk(policy.view, posixpath.dirname(place.path), look).found):
        return Verdict(False, f"{shown} does not exist", "", errno.ENOENT, (), "there is nothing to allow")
    if act.kind == "stat":
        return Verdict(True, f"{shown} is shown to workers")
    if act.writes:
        return written(policy, act, place)
    return _executed(policy, place) if act.kind == "exec" else _read(policy, act, place, look, judge)


def _outside(policy: Policy, act: Act, place: Place, look: Look | None, judge: Judge) -> Verdict:
    """A path that is not in the mounted root."""
    shown = repr(place.path)
    if look is not None and act.kind in ("open", "list", "stat") and look(place.path) is None:
        return Verdict(False, f"{shown} is not on this machine, and workers are not shown where it would be", "mount_namespace",
                       errno.ENOENT, (), "there is nothing to allow")
    why = f"{shown} lies outside of what workers are shown"
    if act.writes:
        made = act.kind in acts.MAKES and policy.view.region(posixpath.dirname(place.path)) == "root"
        return Verdict(False, why, "mount_namespace", errno.EROFS if made else errno.ENOENT, (), _only_scratch(policy))
    if act.kind == "exec":
        return Verdict(False, why, "mount_namespace", errno.ENOENT, (), NO_EXEC)
    return Verdict(False, why, "mount_namespace", errno.ENOENT, *_listed(policy, act, place, look, judge))


def _listed(policy: Policy, act: Act, place: Place, look: Look | None, judge: Judge) -> tuple[tuple[Change, ...], str]:
    """The change that lists a path, if it then is readable; of a link that is not shown by itself, its folder."""
    if not policy.proposes:
        return (), ""
    secret = secrets.reason(place.path) or secrets.reason(led_to(place.path, look))
    if secret:
        return (), f"{secret}, which is never proposed"
    if beneath(place.path, policy.view.scratch):
        return (), "the scratch is the workers' own"
    after = None
    shown = shown_for(place.path, look)
    for paths in ((place.path,), (posixpath.dirname(place.path),), (posixpath.dirname(place.path), shown)):
        if any(secrets.reason(path) for path in paths):
            continue
        changes = tuple(Change("sandbox.read", path) for path in paths)
        after = judge(changed(policy, changes, look), act, look)
        if after.allowed:
            return changes, ""
        if shown == place.path:
            break  # it is no link: its folder would show no more of it
    return (), f"listing it is not enough: {after.why}" if after is not None else "what it leads to is never proposed"


def _only_scratch(policy: Policy) -> str:
    return f"workers write below {policy.view.scratch} only, where sandbox.scratch gives them room"


def written(policy: Policy, act: Act, place: Place) -> Verdict:
    """Of an act that changes what is at a place."""
    shown = repr(place.path)
    if place.region == "device":
        return _on_device(policy, act, place)
    if place.region == "scratch" and policy.sandbox.scratch:
        if act.kind in acts.NO_LANDLOCK_RIGHT and "landlock" in policy.layers:
            return Verdict(False, f"the scratch holds plain files and folders; {acts.said(act)}", "landlock", errno.EACCES, (),
                           "Landlock grants this kind of file nowhere")
        return Verdict(True, f"{shown} is in the scratch, which workers write")
    if place.region == "host":
        if "landlock" in policy.layers:
            return Verdict(False, f"workers may read {shown} at most", "landlock", errno.EACCES, (), _only_scratch(policy))
        allowed = place.found is not None and policy.view.may(place.found, WRITE)
        return Verdict(allowed, f"no file system wall is in force; the mode of {shown} decides", "", 0 if allowed else errno.EACCES, (),
                       "the file's own mode refuses it")
    if place.found is not None and stat.S_ISDIR(place.found.mode) and act.kind == "write":
        return Verdict(False, f"{shown} is a folder", "", errno.EISDIR, (), "a folder is not written as a file")
    # vfs_truncate looks at the mode before the mount; both refuse
    closed = act.kind == "truncate" and place.found is not None and not policy.view.may(place.found, WRITE)
    changes: tuple[Change, ...] = ()
    if place.region == "scratch" and act.kind not in acts.NO_LANDLOCK_RIGHT:
        changes = (Change("sandbox.scratch", SCRATCH_DEFAULT),)
    why = "no scratch is given" if changes else f"{shown} is shown read-only"
    code = errno.EACCES if closed else errno.EROFS
    return Verdict(False, why, "mount_namespace", code, changes, "" if changes else _only_scratch(policy))


def _on_device(policy: Policy, act: Act, place: Place) -> Verdict:
    if act.kind == "write" and (place.path == "/dev/null" or "landlock" not in policy.layers):
        return Verdict(True, f"{place.path!r} is a device that workers may write")
    return Verdict(False, f"{place.path!r} is a device that workers may read only", "landlock", errno.EACCES, (), "it is to be read")


def _executed(policy: Policy, place: Place) -> Verdict:
    if place.found is not None and not (policy.view.may(place.found, SEARCH) and stat.S_ISREG(place.found.mode)):
        return Verdict(False, f"{place.path!r} is no program by its mode", "", errno.EACCES, (), "change the file's mode")
    if "landlock" in policy.layers:
        return Verdict(False, f"workers may read {place.path!r} and not execute it", "landlock", errno.EACCES, (), NO_EXEC)
    return Verdict(True, f"{place.path!r} is shown to workers, and layer landlock, which refuses to execute, is not in force")


def _read(policy: Policy, act: Act, place: Place, look: Look | None, judge: Judge) -> Verdict:
    shown = repr(place.path)
    devices = place.region == "device" or (place.region == "scratch" and policy.sandbox.scratch)
    if place.found is not None and not policy.view.may(place.found, READ) and place.region in ("mounted", "host"):
        mode = f"its mode is {place.found.mode & 0o7777:o}, its owner {place.found.uid}, workers are uid {policy.view.uid}"
        return Verdict(False, f"{shown} is closed: {mode}", "", errno.EACCES, (), "change the file's mode or owner")
    if "landlock" in policy.layers and not devices and not any(beneath(place.path, path) for path in policy.readable):
        changes, why_none = ((), "it holds only what is shown below it") if place.region in ("root", "scratch") else _listed(
            policy, act, place, look, judge)
        return Verdict(False, f"{shown} is not among the paths that workers may read", "landlock", errno.EACCES, changes, why_none)
    return Verdict(True, f"{shown} is among the paths that workers may read")
