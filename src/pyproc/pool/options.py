"""What a user may say of a pool, checked before anything is opened: each refusal names the option, the value and the remedy."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from typing import TypedDict, TypeVar, Unpack

from pyproc.config import values
from pyproc.config.files import read_regular
from pyproc.config.options import Limits, Restart, Sandbox
from pyproc.config.units import parse_time
from pyproc.config.values import QUEUE_MAX, REQUESTS_MAX, WORKERS_MAX, shown
from pyproc.errors import ConfigError, ProtectionUnavailable
from pyproc.supervisor import park
from pyproc.supervisor.spec import WorkerSpec

SOURCE_BYTES = 16 << 20  # a script beyond this is not a script
QUEUE_DEFAULT = 1000  # calls
BUSY_SECONDS_MAX = 0.01  # longer than any wake-up; what an idle worker polls counts as its cpu_time
PREFETCH_MAX = 256  # calls outstanding on a worker: each takes a page of its pipe, which may have 256 (fs.pipe-max-size)
NO_CLOUDPICKLE = "an executor needs cloudpickle; pip install pyproc-supervisor[pickle]"
FOR_FUNCTIONS = ("pickle", "cloudpickle")  # what a worker needs to load a function; imported once, before the fork


@dataclass(frozen=True)
class Options:
    """Of the pool itself; `spec` is the supervisor's part. `timeout`: seconds; `queue`, `max_requests`: calls."""

    name: str
    isolation: str
    timeout: float
    queue: int
    max_requests: int
    spec: WorkerSpec

    @property
    def prefetch(self) -> int:
        """Calls that may be outstanding on a worker."""
        return self.spec.ahead + 1

    @property
    def places(self) -> float:
        """Calls that may run at the same time, where more workers than that are kept."""
        return self.spec.workers if self.isolation == "call" and not self.spec.solo else math.inf


class PoolOptions(TypedDict, total=False):
    """The options of contract section 3, as a type checker sees them; `_read` has their defaults."""

    workers: int
    isolation: str
    sandbox: Sandbox | None
    limits: Limits | None
    restart: Restart | None
    timeout: str | float
    queue: int
    max_requests: int
    env: Mapping[str, str] | None
    python: str | None
    preload: Sequence[str]
    concurrency: int
    prefetch: int
    busy_polling: str | float | None
    zygote: bool
    name: str


def read(script: str | os.PathLike[str] | None, **given: Unpack[PoolOptions]) -> Options:
    """The options of contract section 3. Raises ConfigError, ProtectionUnavailable."""
    for name in given:
        if name not in NAMES:
            raise ConfigError(f"option {str(name)[:80]!r} of the pool is unknown; options are {', '.join(NAMES)}")
    return _read(script, **given)


def _read(
    script: str | os.PathLike[str] | None = None, *, workers: int = 1, isolation: str = "worker", sandbox: Sandbox | None = None,
    limits: Limits | None = None, restart: Restart | None = None, timeout: str | float = 30.0,
    queue: int = QUEUE_DEFAULT, max_requests: int = 0, env: Mapping[str, str] | None = None, python: str | None = None,
    preload: Sequence[str] = (), concurrency: int = 1, prefetch: int = 1, busy_polling: str | float | None = None,
    zygote: bool = True, name: str = "pool",
) -> Options:
    if sys.platform != "linux":
        raise ProtectionUnavailable(f"pools need Linux, this is {sys.platform}", layer="platform",
                                    remedy="run the pool on Linux")
    values.whole("workers", workers, 1, WORKERS_MAX)
    values.whole("queue", queue, 0, QUEUE_MAX)
    values.whole("max_requests", max_requests, 0, REQUESTS_MAX)
    if isolation not in ("worker", "call"):
        remedy = "tenants exist in the service only" if isolation == "tenant" else "write worker or call"
        raise ConfigError(f"isolation is {isolation!r}; {remedy}")
    if concurrency != 1:
        raise ConfigError(f"concurrency is {concurrency!r}; this version serves one call at a time in a worker, write 1")
    values.whole("prefetch", prefetch, 1, PREFETCH_MAX)
    if prefetch > 1 and (isolation == "call" or queue < prefetch):
        why = "each call has a worker of its own" if isolation == "call" else f"calls that are sent ahead stand in the queue of {queue}"
        remedy = "write 1" if isolation == "call" else f"write at most {max(queue, 1)}, or a longer queue"
        raise ConfigError(f"prefetch is {prefetch}, and {why}; {remedy}")
    busy = _busy(busy_polling, isolation)
    if not isinstance(sandbox, Sandbox | None):
        raise ConfigError(f"sandbox is {shown(sandbox)}; write Sandbox(…)")
    if not isinstance(limits, Limits | None):
        raise ConfigError(f"limits is {shown(limits)}; write Limits(…)")
    if not isinstance(restart, Restart | None):
        raise ConfigError(f"restart is {shown(restart)}; write Restart(…)")
    often = Restart() if restart is None else restart
    if not isinstance(name, str) or not values.POOL_NAME.fullmatch(name):
        raise ConfigError(f"name is {shown(name)}; write at most 64 letters, digits, _, - and .")
    values.switch("zygote", zygote)
    preloaded = values.modules("preload", preload)
    if script is None:  # functions are all that is called, by way of `pool.executor`
        if find_spec("cloudpickle") is None:
            raise ConfigError(NO_CLOUDPICKLE)
        script, preloaded = os.devnull, (*FOR_FUNCTIONS, *preloaded)
    if not isinstance(script, (str, os.PathLike)) or not isinstance(os.fspath(script), str) or not os.fspath(script):
        raise ConfigError(f"script is {shown(script)}; give the path of a Python file as text or as a pathlib.Path")
    path = os.path.abspath(os.fspath(script))
    ahead = isolation == "call" and zygote  # without a zygote nothing can be forked
    spec = WorkerSpec(name=name, script=path, source="" if path == os.devnull else _source(path), workers=workers,
                      sandbox=Sandbox() if sandbox is None else sandbox, limits=Limits() if limits is None else limits,
                      environment=values.environment("env", env), python=values.interpreter("python", python),
                      preload=preloaded, solo=not zygote, apart=isolation == "call",
                      parked=park.bound(workers) if ahead else 0, ahead=prefetch - 1, busy_polling=busy, intensity=often.intensity,
                      period=often.period)
    return Options(name=name, isolation=isolation, timeout=parse_time("timeout", timeout), queue=queue,
                   max_requests=1 if isolation == "call" else max_requests, spec=spec)


def _busy(given: str | float | None, isolation: str) -> float:
    """Seconds, 0 is off. Raises ConfigError where an end that polls would keep the other one from running, or waits for nothing."""
    if given is None:
        return 0.0
    seconds, remedy = parse_time("busy_polling", given), ""
    if seconds > BUSY_SECONDS_MAX:
        remedy = f"write at most {BUSY_SECONDS_MAX:g} s"
    elif isolation == "call":
        remedy = "with isolation call a worker has one call; leave it out"
    elif len(os.sched_getaffinity(0)) < 2:
        remedy = "this process may run on 1 core, where each end would keep the other one from running; leave it out, or allow more"
    if remedy:
        raise ConfigError(f"busy_polling is {shown(given)}; {remedy}")
    return seconds


def _source(path: str) -> str:
    try:
        data = read_regular(path, SOURCE_BYTES)
    except PermissionError as error:
        remedy = f"let uid {os.geteuid()} read it and its folders"
        raise ConfigError(f"script {path!r} cannot be read: {error.strerror}; {remedy}") from error
    except (OSError, ValueError) as error:  # a path with NUL
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            raise ConfigError(f"script {path!r} is longer than 16 MiB; put data into files and list them in sandbox.read") from error
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"script {path!r} cannot be read: {why}; give the path of a Python file") from error
    try:
        return data.decode("utf-8-sig")  # no other encoding: the script may be anybody's, and is not to choose a codec here
    except UnicodeDecodeError as error:
        raise ConfigError(f"script {path!r} is not UTF-8: {error}; save it as UTF-8") from error


Init = TypeVar("Init", bound=Callable[..., None])


def with_options(init: Init) -> Init:
    """Have help() and inspect show the options with their defaults, and not `**options`: an unknown option is a ConfigError that
    names the known ones, for which it has to arrive here."""
    of_self = next(iter(signature(init).parameters.values()))
    options = signature(_read)
    init.__signature__ = options.replace(  # type: ignore[attr-defined]
        parameters=[of_self, *options.parameters.values()], return_annotation=None)
    return init


NAMES = tuple(list(signature(_read).parameters)[1:])
