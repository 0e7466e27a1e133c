"""`pyproc doctor`: layer by layer what this machine can enforce, what is missing and what would help.

Each layer is really tried by a process of ours. Exit code 0 where a pool could start, 78 where a required layer is
missing.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from pyproc.cli import output, target
from pyproc.errors import ProtectionUnavailable


@click.command(short_help="Show what this machine can enforce.")
@target.layers
@target.shared
def command(layers: dict[str, str], config: str | None, *, as_json: bool) -> int:
    """Show each layer of the sandbox: enforced, missing or off, what it needs of the kernel, and the remedy."""
    from pyproc.host import cgroup
    from pyproc.sandbox import interpreter, plan, probe

    sandbox = target.sandbox_of(config, None, layers)
    granted, abi = probe.granted()
    _, why_not = cgroup.parents()
    granted = {**granted, "cgroup": why_not}
    refusal = ""
    try:
        decided = plan.layers(sandbox, granted)
        if os.geteuid() == 0:
            plan.refuse_unreachable(decided, interpreter.describe(None), plan.FIRST_WORKER_UID)
    except ProtectionUnavailable as error:
        refusal = str(error)
    found: dict[str, dict[str, Any]] = {}
    for name, (needs, remedy) in probe.NEEDS.items():
        wanted = sandbox.layers.get(name, "require" if name in plan.REQUIRED else "prefer")
        detail = granted.get(name, "not granted")
        state = "off" if wanted == "off" else "missing" if detail else "enforced"
        found[name] = {"state": state, "wanted": wanted, "needs": needs, "detail": detail,
                       "remedy": remedy if state == "missing" else ""}
    if as_json:
        output.write(output.encode({"ok": not refusal, "refusal": refusal, "kernel": platform.release(),
                                    "landlock_abi": abi, "layers": found}))
    else:
        output.write(_text(found, refusal, abi))
    return ProtectionUnavailable.exit_code if refusal else 0


def _text(found: dict[str, dict[str, Any]], refusal: str, abi: int) -> str:
    rows = [("LAYER", "STATE", "WANTED", "NEEDS")]
    rows += [(name, layer["state"], layer["wanted"], layer["needs"]) for name, layer in found.items()]
    lines = [f"kernel {platform.release()}, Landlock ABI {abi}", "", output.table(rows), ""]
    for name, layer in found.items():
        if layer["state"] == "missing":
            lines.append(output.show(f"{name} is missing: {layer['detail']}; remedy: {layer['remedy']}"))
    enforced = sum(layer["state"] == "enforced" for layer in found.values())
    lines.append(f"{enforced} of {len(found)} layers can be enforced")
    lines.append(output.show(f"a pool would refuse to start: {refusal}") if refusal else "a pool can start here")
    return "\n".join(lines)
