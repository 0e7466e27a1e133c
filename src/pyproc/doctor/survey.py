"""Measures a pool: starts it, reads what a worker of it really has, calls a function that raises, and ends it.

Where the pool does not start, the facts are those of its plan, marked so, with the refusal: what would be in force. Everything
else that is asked of the machine goes through `host`, `sandbox.probe` or the files beside this one.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyproc.config.files import read_regular
from pyproc.config.model import PoolConfig
from pyproc.config.options import Sandbox
from pyproc.doctor import lint, pins, places, script
from pyproc.doctor.checklist import Pool as Evidence
from pyproc.doctor.facts import Facts, secret_variable
from pyproc.errors import FunctionFailed, PyprocError
from pyproc.host import cgroup, procfs
from pyproc.pool.options import SOURCE_BYTES
from pyproc.pool.sync import Pool
from pyproc.sandbox import plan, probe, profile
from pyproc.sandbox.rules import ACTION_MASK, PERMITTING, Profile, ProfileError, syscall_table

DEFAULTS = "defaults"  # the pool that is looked at where none is configured
FAILING = '''from pyproc_worker import expose


@expose
def fail(secret: str) -> None:
    raise RuntimeError(secret)
'''


def granted() -> tuple[dict[str, str], int]:
    """Layer -> "" or why not, each really tried, and the Landlock ABI. Raises ProtectionUnavailable."""
    found, abi = probe.granted()
    return {**found, "cgroup": cgroup.parents()[1]}, abi


def measure(config: PoolConfig, found: Mapping[str, str]) -> Facts:
    """The facts of a configured pool, and nothing else of it."""
    return _started(config, found, "")[0]


def of_pool(config: PoolConfig, found: Mapping[str, str], folders: tuple[Path, ...]) -> Evidence:
    """The evidence of a configured pool. `folders`: where its pins may stand."""
    facts, functions, _ = _started(config, found, "")
    text = source(config.script)
    if text is None:
        return Evidence(facts, script.Script("", frozenset(), (), (), "it cannot be read"), functions, None, None, ("", ""))
    told = script.read(text)
    return Evidence(facts, told, functions, lint.check(text), pins.look(folders, told.imports, installed=config.python is None),
                    _of_defaults(config, found)[1] if facts.measured else ("", ""))


def of_defaults(sandbox: Sandbox, found: Mapping[str, str]) -> Evidence:
    """The evidence of a pool of the defaults, with a script of ours."""
    facts, told = _of_defaults(PoolConfig(DEFAULTS, "", sandbox=sandbox), found)
    return Evidence(facts, None, None, None, None, told)


def _of_defaults(config: PoolConfig, found: Mapping[str, str]) -> tuple[Facts, tuple[str, str]]:
    """A pool as this one but for its script, which raises: its facts, and (what the caller saw, the secret)."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="pyproc-") as folder:
        path = Path(folder, "fails.py")
        path.write_text(FAILING, encoding="utf-8")
        facts, _, told = _started(replace(config, script=str(path), preload=(), python=None), found, secret)
    return facts, (told, secret)


def _started(config: PoolConfig, found: Mapping[str, str], secret: str) -> tuple[Facts, dict[str, Any] | None, str]:
    """The facts, the functions, and with `secret` what a caller saw of it."""
    told = ""
    try:
        with Pool(config.script, **{**config.options(), "workers": 1}) as pool:
            status, functions = pool.status(), pool.functions()
            made = {name: plan.LayerState(layer["state"], layer["wanted"], layer["detail"]) for name, layer in status["layers"].items()}
            facts = _facts(config, made, status["workers"][0]["pid"], "")
            if secret:
                try:
                    pool.call("fail", secret)
                except FunctionFailed as error:
                    told = str(error)
            return facts, functions, told
    except PyprocError as error:
        return _facts(config, plan.states(config.sandbox, found), None, str(error)), None, told


def _facts(config: PoolConfig, made: Mapping[str, plan.LayerState], worker: int | None, refusal: str) -> Facts:
    status = None if worker is None else procfs.status(worker)
    limits = {} if worker is None else {name: hard for name, (_, hard) in procfs.limits(worker).items()}
    uid = None if status is None else status.uids[0]
    variables = {name: why for name, value in config.env.items() if (why := secret_variable(name, value))}
    return Facts(
        pool=config.name, measured=worker is not None, refusal=refusal, layers=made, profile=config.sandbox.profile,
        allowed=_allowed(config.sandbox.profile, filtered=made["seccomp"].state == "enforced"), supervisor_uid=os.geteuid(),
        worker_uid=uid, secret_variables=variables, places=places.look(config.sandbox.read, uid), scratch=config.sandbox.scratch or 0,
        isolation=config.isolation, workers=config.workers, memory=config.limits.memory,
        machine_memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), cpus=config.limits.cpus,
        processes=config.limits.processes, timeout=config.timeout, rlimits=limits)


def _allowed(name: str, *, filtered: bool) -> frozenset[str]:
    """The system calls that reach the kernel, of any argument."""
    try:
        rules: Profile = profile.named(name)
    except ProfileError:  # the pool's refusal says it
        rules, filtered = profile.shipped("strict"), False
    table = frozenset(syscall_table(rules.machine))
    if not filtered or rules.default & ACTION_MASK in PERMITTING:
        return table
    return frozenset(rule.name for rule in rules.rules if rule.action & ACTION_MASK in PERMITTING) & table


def source(path: str) -> str | None:
    """The text of a script, or None where it cannot be read."""
    try:
        return read_regular(path, SOURCE_BYTES).decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return None
