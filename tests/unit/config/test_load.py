"""The configuration: what a file, the environment and flags make of it, in which order, and how a mistake is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pyproc import Pool, Unavailable, WorkerLost
from pyproc.config import load
from pyproc.config.model import KEYS, PLAIN, TABLES, Configuration
from pyproc.config.origin import DEFAULT, Origin
from pyproc.errors import ConfigError
from pyproc.pool import options

FILE = """
[pools.scoring]
script = "worker.py"
workers = 4
isolation = "call"
timeout = "30 s"
queue = 64
max_requests = 7
env = { MODEL = "/srv/models/a.bin" }
preload = ["json"]
python = "bin/python"
  [pools.scoring.sandbox]
  profile = "own.json"
  read = ["models", "/srv/models"]
  layers = { landlock = "require", cgroup = "prefer" }
  [pools.scoring.limits]
  memory = "1 GiB"
  cpus = 1.5
  [pools.scoring.restart]
  intensity = 3
  period = "10 s"

[pools.big-one]
script = "/srv/other.py"

[audit]
on_failure = "refuse"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(FILE)
    return path


def loaded(path: Path, environ: dict[str, str] | None = None, **flags: Any) -> Configuration:
    return load.load(str(path), environ or {}, load.Flags(**flags))


def test_each_key_of_the_file_arrives(file: Path) -> None:
    made = loaded(file)
    pool, folder = made.pools["scoring"], file.parent
    assert list(made.pools) == ["scoring", "big-one"]
    assert (pool.script, pool.python) == (f"{folder}/worker.py", f"{folder}/bin/python")
    assert pool.sandbox.profile == f"{folder}/own.json"
    assert pool.sandbox.read == (str(folder / "models"), "/srv/models")
    assert (pool.workers, pool.isolation, pool.timeout, pool.queue, pool.max_requests) == (4, "call", 30.0, 64, 7)
    assert (pool.env, pool.preload) == ({"MODEL": "/srv/models/a.bin"}, ("json",))
    assert pool.sandbox.layers == {"landlock": "require", "cgroup": "prefer"}
    assert (pool.limits.memory, pool.limits.cpus, pool.restart.intensity, pool.restart.period) == (1 << 30, 1.5, 3, 10.0)
    assert made.sections == {"audit": {"on_failure": "refuse"}}


def test_defaults_are_those_of_pool(file: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("")
    file.write_text('[pools.a]\nscript = "worker.py"\n')
    pool = loaded(file).pools["a"]
    by_file = options.read(pool.script, **pool.options())
    by_default = options.read(tmp_path / "worker.py", name="a")
    for name in ("isolation", "timeout", "queue", "max_requests"):
        assert getattr(by_file, name) == getattr(by_default, name)
    for name in ("script", "workers", "environment", "python", "preload", "solo", "intensity", "period"):
        assert getattr(by_file.spec, name) == getattr(by_default.spec, name)
    for table in ("sandbox", "limits"):
        for key in KEYS[table]:
            assert getattr(getattr(by_file.spec, table), key) == getattr(getattr(by_default.spec, table), key)


def test_restart_reaches_what_counts_deaths(file: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("")
    pool = loaded(file).pools["scoring"]
    spec = options.read(pool.script, **pool.options()).spec
    assert (spec.intensity, spec.period) == (3, 10.0)


def test_a_pool_breaks_by_the_intensity_of_its_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import os\nfrom pyproc_worker import expose\n@expose\ndef die():\n    os._exit(3)\n")
    file.write_text('[pools.a]\nscript = "worker.py"\nrestart = { intensity = 0, period = "60 s" }\n')
    config = loaded(file).pools["a"]
    with Pool(config.script, **config.options()) as pool:
        with pytest.raises(WorkerLost):
            pool.call("die")
        with pytest.raises(Unavailable, match="died"):
            pool.call("die")


@pytest.mark.parametrize(("variable", "text", "key", "value"), [
    ("PYPROC_POOLS__SCORING__WORKERS", "2", "workers", 2),
    ("PYPROC_POOLS__SCORING__TIMEOUT", "250 ms", "timeout", 0.25),
    ("PYPROC_POOLS__SCORING__ISOLATION", "worker", "isolation", "worker"),
    ("PYPROC_POOLS__SCORING__PRELOAD", '["csv"]', "preload", ("csv",)),
    ("PYPROC_POOLS__SCORING__ENV__PORT", "80", "env.PORT", "80"),
    ("PYPROC_POOLS__SCORING__SANDBOX__PROFILE", "strict", "sandbox.profile", "strict"),
    ("PYPROC_POOLS__SCORING__SANDBOX__LAYERS__MDWE", "off", "sandbox.layers.mdwe", "off"),
    ("PYPROC_POOLS__SCORING__LIMITS__MEMORY", "2 GiB", "limits.memory", 2 << 30),
    ("PYPROC_POOLS__SCORING__LIMITS", '{ memory = "2 GiB" }', "limits.memory", 2 << 30),
    ("PYPROC_POOLS__SCORING__RESTART__INTENSITY", "9", "restart.intensity", 9),
])
def test_environment_is_stronger_than_the_file(file: Path, variable: str, text: str, key: str, value: object) -> None:
    made = loaded(file, {variable: text})
    assert dict(made.pools["scoring"].values())[f"pools.scoring.{key}"] == value
    assert made.origin(f"pools.scoring.{key}") == Origin("environment", variable)


def test_other_sections_take_overrides_too(file: Path) -> None:
    assert loaded(file, {"PYPROC_AUDIT__ON_FAILURE": "count", "PYPROC_SERVICE__STATE_DIR": "/srv/x"}).sections == {
        "audit": {"on_failure": "count"}, "service": {"state_dir": "/srv/x"}}


def test_pool_is_found_by_its_name_in_capitals(file: Path) -> None:
    assert loaded(file, {"PYPROC_POOLS__BIG_ONE__QUEUE": "3"}).pools["big-one"].queue == 3


def test_flags_are_stronger_than_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    made = loaded(file, {"PYPROC_POOLS__SCORING__SANDBOX__PROFILE": "strict", "PYPROC_POOLS__SCORING__SCRIPT": "x.py"},
                  pool="scoring", profile="default", script="here.py", layers={"mdwe": "off"})
    pool = made.pools["scoring"]
    assert (pool.sandbox.profile, pool.script, pool.sandbox.layers["mdwe"]) == ("default", "/here.py", "off")
    assert made.origin("pools.scoring.sandbox.profile") == Origin("flag", "--profile")
    assert made.pools["big-one"].sandbox.profile == "strict"  # the flags are of the pool that --pool names
    assert loaded(file, profile="default").pools["big-one"].sandbox.profile == "default"


def test_each_value_has_its_origin(file: Path) -> None:
    made = loaded(file, {"PYPROC_POOLS__SCORING__LIMITS": '{ memory = "2 GiB" }'})
    for key, _ in (pair for pool in made.pools.values() for pair in pool.values()):
        assert made.origin(key).kind in ("default", "file", "environment")
    assert made.origin("pools.scoring.workers") == Origin("file", str(file))
    assert made.origin("pools.scoring.env.MODEL") == Origin("file", str(file))
    assert made.origin("pools.scoring.limits.cpus") == DEFAULT  # the variable replaced the file's table
    assert made.origin("pools.big-one.workers") == DEFAULT


@pytest.mark.parametrize(("text", "told"), [
    ("python = 3", "pools.a.python is 3; give the path of a Python interpreter"),
    ("python = ''", "pools.a.python is ''; give the path"),
    ("workers = 0", "pools.a.workers is 0; write a whole number from 1 to 1024"),
    ("workers = true", "pools.a.workers is true; write a whole number"),
    ("zygote = 1", "pools.a.zygote is 1; write true or false"),
    ("limits = { open_files = 1.5 }", "pools.a.limits.open_files is 1.5; write a whole number from 16 to 1048576"),
    ("limits = { threads = true }", "pools.a.limits.threads is true; write a whole number from 1 to 1048576"),
    ("queue = 'x'", "pools.a.queue is 'x'; write a whole number from 0 to"),
    ("max_requests = -1", "pools.a.max_requests is -1; write a whole number from 0 to"),
    ("isolation = 'process'", "pools.a.isolation is 'process'; write worker, call, tenant"),
    ("timeout = '30'", "pools.a.timeout is '30'; write a number or a text with one of the units"),
    ("env = { A = 3 }", "pools.a.env has 'A' of type int; values are text"),
    ("env = { 'A=B' = 'x' }", "pools.a.env has the name 'A=B'"),
    ("preload = 'json'", "pools.a.preload is 'json'; give a list of names"),
    ("restart = 3", "pools.a.restart is 3; write a table, [pools.a.restart]"),
    ("restart = { intensity = -1 }", "pools.a.restart.intensity is -1; write a whole number from 0 to 10000"),
    ("restart = { period = 'x' }", "pools.a.restart.period is 'x'"),
    ("restart = { max = 1 }", "pools.a.restart.max is unknown; possible are intensity, period"),
    ("limits = { memory = '1 MB' }", "pools.a.limits.memory is '1 MB'"),
    ("sandbox = { layers = { roof = 'off' } }", "pools.a.sandbox.layers names 'roof'"),
    ("sandbox = { layers = { mdwe = 'no' } }", "pools.a.sandbox.layers['mdwe'] is 'no'"),
    ("sandbox = { read = ['/'] }", "pools.a.sandbox.read names '/'"),
    ("sandbox = { scratch = '1 MiB' }", "pools.a.sandbox.scratch is set and profile strict cannot write"),
])
def test_a_mistake_is_told_with_file_key_value_and_remedy(file: Path, text: str, told: str) -> None:
    file.write_text(f'[pools.a]\nscript = "worker.py"\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        loaded(file)
    assert str(caught.value).startswith(f"config '{file}': {told}")


@pytest.mark.parametrize(("variable", "text", "told"), [
    ("PYPROC_POOLS__SCORING__WORKERS", "many", "pools.scoring.workers is 'many'; write a whole number from 1 to 1024 (set by"),
    ("PYPROC_POOLS__SCORING__WORKERZ", "1", "pools.scoring.workerz is unknown"),
    ("PYPROC_POOLS__SCORIN__WORKERS", "1", "WORKERS means no pool of the file; the pools are scoring, big-one"),
    ("PYPROC_POOL__SCORING__WORKERS", "1", "variable PYPROC_POOL__SCORING__WORKERS names no key; possible are PYPROC_SERVICE__…"),
    ("PYPROC_POOLS__SCORING__", "1", "names no key"),
    ("PYPROC_POOLS__SCORING__QUEUE__DEPTH", "1", "sets pools.scoring.queue.depth, and pools.scoring.queue is 64, no table"),
    ("PYPROC_POOLS__SCORING__QUEUE", "1\nx = 2", "pools.scoring.queue is '1\\nx = 2'; write a whole number"),
])
def test_a_mistake_in_the_environment_is_told_with_its_variable(file: Path, variable: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, {variable: text})
    assert told in str(caught.value) and variable in str(caught.value)


def test_other_variables_are_not_ours_to_judge(file: Path) -> None:
    loaded(file, {"PYPROC_LOG_LEVEL": "debug", "PYPROC_SOCKET_PATH": "x", "PYPROCX__A": "1", "POOLS__A": "1"})


def test_a_secret_of_the_environment_table_is_not_repeated(file: Path) -> None:
    file.write_text('[pools.a]\nscript = "worker.py"\nenv = { TOKEN = ["hunter2"] }\n')
    with pytest.raises(ConfigError) as caught:
        loaded(file)
    assert "hunter2" not in str(caught.value) and "TOKEN" in str(caught.value)


def test_two_pools_that_one_variable_means_are_refused(file: Path) -> None:
    file.write_text('[pools]\na-b = { script = "x" }\na_b = { script = "x" }\n')
    with pytest.raises(ConfigError, match="means a-b and a_b"):
        loaded(file, {"PYPROC_POOLS__A_B__QUEUE": "1"})


@pytest.mark.parametrize("name", ["", "a/b", "*", "x" * 65, "é"])
def test_a_pool_s_name_must_fit_into_methods_labels_and_variables(file: Path, name: str) -> None:
    file.write_text(f'[pools."{name}"]\nscript = "worker.py"\n')
    with pytest.raises(ConfigError, match="has a name that cannot be used"):
        loaded(file)


@pytest.mark.parametrize("text", ["[" * 100_000, "x = " + "[" * 100_000, "pools = []", "\x00", "pools.a = 1", "[doctr]"])
def test_what_is_no_configuration_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError):
        loaded(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        loaded(file)


def test_any_value_at_any_key_is_taken_or_refused(file: Path) -> None:
    """Nothing but ConfigError comes out, whatever stands in the file."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    samples = ["3", "-1", "0", "1.5", "nan", "true", '"x"', '""', '"\\u0000"', "[]", "[1]", '["a"]', '["/", "\\u0000"]', "{}",
               '{ a = "b" }', "{ a = [] }", "1979-05-27", '"30 s"', '"1 GiB"', "9" * 300, "[[[]]]"]
    keys = ["script", *PLAIN, *TABLES, *(f"{table}.{key}" for table in TABLES for key in KEYS[table])]
    for _ in range(400):
        chosen = {key: chance.choice(samples) for key in chance.sample(keys, chance.randrange(1, 5))}
        lines = [f"a.{key} = {value}" for key, value in chosen.items()]
        if not any(key.startswith("script") for key in chosen):
            lines.append('a.script = "w.py"')
        file.write_text("[pools]\n" + "\n".join(lines))
        try:
            pool = loaded(file).pools["a"]
        except ConfigError as error:
            assert str(error).startswith("config ")
        else:
            assert list(pool.values())
