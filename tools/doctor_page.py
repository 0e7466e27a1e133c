"""Writes docs/reference/doctor.md from the lines of the exposure and the boxes: `.venv/bin/python tools/doctor_page.py --write`.

Without --write the page is printed. A test fails when the file is not what this prints.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyproc.doctor.boxes import BOXES
from pyproc.doctor.exposure import BREADTH, LINES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "doctor.md"
HEAD = """# doctor

Generated from the code by `tools/doctor_page.py`; do not edit. `pyproc doctor` starts each pool of the
[configuration](configuration.md) once, with one worker, reads what that worker really has, and ends it. It reports the
[layers](layers.md), the exposure of each pool and the checklists of the security guide. Without a configuration and without
`--worker` it does so for a pool of the defaults. The functions of the script are listed and not called.

| option | meaning |
|---|---|
| `--fail-above N` | exit code 1 where the exposure of a pool, less what is [accepted](#accepted), is above N; 0 to 10, without it 10 |
| `--attest BOX --by NAME` | sign for a box that only a person can tick; `--statement TEXT`, `--expires TIME` (at most 400 d) |
| `--worker`, `--pool`, `--profile`, `--layer` | as for [other verbs](command-line.md); without `--pool` all pools are reported |

Exit codes: 78 where a pool does not start, else 1 where one is above the limit, else 0. A pool that does not start is judged by its
plan, and `measured` in the document says so. Colour is for terminals, without `NO_COLOR`.

## Exposure

The sum of these lines, from 0 (closed) to 10 (open); the weights add up to 10. A line counts in full or in part, and never less
when a layer is switched off. The weights are judgement: they order what an attacker gains. The number compares configurations of
this program on one machine, nothing else.

| line | weight | key | what is measured |
|---|---|---|---|
"""
CLASSES = """
`profile_breadth` counts classes of system calls of which one reaches the kernel:

| class | calls |
|---|---|
"""
CHECKLIST = """
A path is wide that stands at the top of the file system, is a home folder or above one, or belongs to the kernel or to running
services. Variables are told by names such as TOKEN or PASSWORD, and by values such as private keys and URLs with a password; files
by names such as `id_rsa` and `*.key`, where the workers' uid may open them. Names only: a secret under a harmless name is not
found. A search ends after 50,000 names, and a path that was not seen to the end counts for half.

## Checklists

Each box is `pass`, `fail` or `not applicable`, with its evidence and `as_of`, the time of the evidence: that of the run, or of the
record. A box without evidence fails. Boxes of a pool pass when they do for each pool that they apply to. Failing boxes do not
change the exit code.

| box | checklist | title | judged by | a record holds |
|---|---|---|---|---|
"""
MEASURES = {
    "input_validation": "functions of the loaded script whose input has no schema fail",
    "error_messages": "what a caller sees of an exception with a secret, tried here; `public_errors` of every exception fails",
    "pinned_dependencies": "exact versions and hashes, or a lock file, beside script or configuration; versions installed",
    "static_analysis": "bandit's rules, by ruff (extra `doctor`), on the script; its `noqa` comments do not count",
    "non_root": "the uid of a worker on the host, and of the supervisor",
    "socket_permissions": "mode of the service's sockets and their folder; not applicable without a service",
    "resource_limits": "limits read from a worker, and its control group",
    "sandboxing": "layers in force on a worker: seccomp and a file system wall",
}
TAIL = """
A record stands in `attestations` beside the configuration, a JSON object a line, with `mac`, an HMAC by `attestations.key` (made at
the first record, 0600). It proves that who wrote it could read the key, and that it was not changed since; `by` is a claim, `uid`
the kernel's word at the time ([decision](../adr/0011-attestations-are-keyed-records.md)). A record about code ends with the code.
The youngest record of a box counts.

## Accepted

```toml
[doctor]
suppress = [
    { check = "cpus", reason = "one pool on its own machine" },
    { check = "S301", pool = "scoring", reason = "reads our own files", until = 2027-01-01 },
]
```

`check` is a line, a box, or a rule of the static analysis. `reason` is required; `pool` and `until`, the last day, are not. What is
accepted stays in the exposure and in the report, with its reason; `--fail-above` does not count it. After its last day an entry
counts no more and is named. Another key, check or pool is refused with 78.

## The document

`--json` gives `{"ok", "time", "refusal", "kernel", "uid", "landlock_abi", "layers", "pools", "fail_above", "above", "checklist",
"expired"}`. `layers` are those of the first pool.

| key | holds |
|---|---|
| `pools.NAME` | `exposure`, `accepted`, `measured` (`pool` or `plan`), `refusal`, `profile`, `layers`, `lines` |
| `pools.NAME.layers.LAYER` | `state`, `wanted`, `needs`, `detail`, `remedy` |
| `pools.NAME.lines[]` | `name`, `points`, `weight`, `key`, `evidence`, `remedy`, `accepted` |
| `checklist[]` | `name`, `group`, `title`, `state`, `evidence`, `remedy`, `as_of`, `accepted` |
| `expired[]` | `check`, `pool`, `until` |
"""


def page() -> str:
    """The whole page."""
    lines = [f"| `{line.name}` | {line.weight / 100:.2f} | `{_key(line.key)}` | {line.what} |" for line in LINES]
    classes = [f"| {kind} | {', '.join(f'`{call}`' for call in calls)} |" for kind, calls in BREADTH.items()]
    rows = [(f"`{box.name}`", box.group, box.title, MEASURES.get(box.name, "a record"), _days(box.days, of_code=box.of_code))
            for box in BOXES]
    boxes = [f"| {' | '.join(row)} |" for row in rows]
    return HEAD + "\n".join(lines) + "\n" + CLASSES + "\n".join(classes) + "\n" + CHECKLIST + "\n".join(boxes) + "\n" + TAIL


def _key(key: str) -> str:
    return key if key.startswith("service.") else f"pools.NAME.{key}"


def _days(days: int, *, of_code: bool) -> str:
    return f"{days} d{', for that script' if of_code else ''}" if days else ""


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
