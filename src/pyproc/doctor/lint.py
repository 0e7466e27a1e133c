"""Bandit's rules on a worker script, by ruff, which implements them (its rules S).

Rules and reasons: the script is read from standard input and never run; no configuration, cache or suppression comment of the
script's author counts, as `[doctor] suppress` with a reason is the place for an exception. Asserts (S101) are not looked at:
workers run without -O. Rejected: bandit itself, which parses with the interpreter's own parser and needs five packages.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import NamedTuple

RUFF_SECONDS = 30.0
COMMAND = ("check", "--isolated", "--no-cache", "--ignore-noqa", "--quiet", "--select", "S", "--ignore", "S101", "--target-version",
           "py311", "--output-format", "json", "--stdin-filename", "worker.py", "-")
REMEDY = "pip install 'pyproc-supervisor[doctor]'"


class Finding(NamedTuple):
    """A broken rule: its `code` (S102), `line` and text."""

    code: str
    line: int
    text: str


class Verdict(NamedTuple):
    """`findings`; `tool` that looked; `missing`: why none did, or ""."""

    findings: tuple[Finding, ...]
    tool: str
    missing: str


def check(source: str) -> Verdict:
    """Look at the text of a script. A tool that is absent or fails is a verdict too."""
    if importlib.util.find_spec("ruff") is None:
        return Verdict((), "", "ruff, which has bandit's rules, is not installed")
    try:
        run = subprocess.run([sys.executable, "-I", "-m", "ruff", *COMMAND], input=source.encode("utf-8", "replace"),
                             capture_output=True, timeout=RUFF_SECONDS, check=False, env={})  # no RUFF_ variable counts
        found = [(entry["code"], int(entry["location"]["row"]), str(entry["message"])) for entry in json.loads(run.stdout)]
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        return Verdict((), "", f"ruff did not answer: {error}")
    # A text that is no Python has findings without a rule's code.
    return Verdict(tuple(Finding(str(code or "syntax"), line, text) for code, line, text in found), "bandit's rules, by ruff", "")
