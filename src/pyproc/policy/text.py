"""A policy for people: what is enforced, which calls are answered how and why, paths, limits with their units. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from pyproc.config.units import time_text
from pyproc.policy import calls, head
from pyproc.policy.subject import Policy
from pyproc.sandbox.plan import LayerState
from pyproc.sandbox.seccomp import spelled

WIDTH = 120  # columns
BYTES, SECONDS = ("memory", "file_size", "output", "request", "response"), ("cpu_time",)
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def render(policy: Policy) -> str:
    """Several lines; names and paths as they are: whoever prints it escapes them."""
    return "\n\n".join("\n".join(part) for part in (
        _head(policy), _layers(policy.layers), _paths(policy), _limits(policy), _calls(policy), _remarks(policy)) if part)


def export(policy: Policy) -> str:
    """The same below a head, of a policy whose layers were not tried here."""
    return head.comment(policy, "policy in words", "the layers were not tried: `pyproc policy show` tries them") + "\n" + render(policy)


def size(count: int) -> str:
    """ "64 MiB"; bytes where no unit fits."""
    for unit, name in UNITS:
        if count and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} B"


def _head(policy: Policy) -> list[str]:
    first, last = policy.uids
    uids = f"uid {first}" if first == last else f"uids {first} to {last}, one for each tree"
    where = policy.script or "any script"
    return [f"policy of pool {policy.pool}, {where}",
            f"profile {policy.profile}, filter {policy.filter_sha256} for {policy.rules.machine}",
            f"pyproc {policy.version}, workers on the host as {uids}",
            f"environment: {', '.join(policy.environment)} (values are not shown)"]


def _layers(layers: Mapping[str, LayerState]) -> list[str]:
    told = [f"layers: {sum(layer.state == 'enforced' for layer in layers.values())} of {len(layers)} enforced"]
    for name, layer in layers.items():
        detail = f": {layer.detail}" if layer.state == "missing" else ""
        told.append(f"  {name:<18} {layer.state} ({layer.wanted}){detail}")
    return told


def _paths(policy: Policy) -> list[str]:
    told = ["paths"]
    told += [f"  read     {path}" + (" (listed)" if path in policy.listed else "") for path in policy.readable]
    told += [f"  device   {path}" for path in policy.devices]
    told.append(f"  scratch  {policy.scratch_path}, {size(policy.scratch)}, {policy.limits.scratch_files} files" if policy.scratch
                else "  scratch  none: no file can be written")
    return told


def _limits(policy: Policy) -> list[str]:
    told = ["limits of a worker"]
    for name in sorted(policy.limits.__slots__):
        value = getattr(policy.limits, name)
        words = (size(value) if name in BYTES else time_text(value) if name in SECONDS
                 else "no share of its own" if value is None else f"{value}")
        told.append(f"  {name:<14} {words}")
    told.append("  rlimits        " + ", ".join(f"{name} {value}" for name, value in sorted(policy.rlimits.items())))
    return told


def _calls(policy: Policy) -> list[str]:
    if policy.layers["seccomp"].state != "enforced":
        return [f"system calls: all, as layer seccomp is {policy.layers['seccomp'].state}"]
    groups = calls.grouped(policy.rules)
    allowed = {name for group in groups if group.answer == "allow" for name in group.names}
    told = [f"system calls: {len(allowed)} allowed, some under conditions; of one call's rules the first that holds decides"]
    for answer in sorted({group.answer for group in groups}):
        told.append(f" {answer}")
        for group in groups:
            if group.answer == answer:
                told += _wrapped(", ".join(group.names), "  ")
                told += _wrapped(f"where {group.condition}", "      ") if group.condition else []
                told += _wrapped(group.reason or "no reason is given", "      ")
    told.append(f" every other call of the table: {spelled(policy.rules.default)}; a newer one: ENOSYS; another architecture: the end")
    return told


def _wrapped(text: str, indent: str) -> Iterable[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _remarks(policy: Policy) -> list[str]:
    return ["remarks", *(f"  {remark}" for remark in policy.remarks)] if policy.remarks else []
