"""Every limit is met, in two ways or more, has the bound or the reason that the reference names, and no neighbour notices.

The neighbour is the pool's other worker: it serves a stream, each part of which is compared while the limit is met, and it must
be the same process afterwards.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from pyproc import CallError, Limits, PayloadTooLarge, Pool, ResourceExhausted, Sandbox, WorkerLost
from pyproc.host import cgroup

pytestmark = [pytest.mark.unprivileged, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("greedy.py")
STRICT, FILES, ALONE = Sandbox(), Sandbox("default", scratch="4 MiB"), Sandbox(layers={"cgroup": "off"})

# limit -> what it is set to, in which sandbox; how it is met -> the bound of the exception, or the reason of the death
MET: dict[str, tuple[dict[str, Any], Sandbox, dict[str, str]]] = {
    "memory": ({"memory": "128 MiB"}, STRICT, {"objects": "oom", "shared_pages": "oom", "addresses": "memory"}),
    "memory without a group": ({"memory": "256 MiB"}, ALONE, {"objects": "memory", "shared_pages": "memory", "addresses": "memory"}),
    "cpu_time": ({"cpu_time": "1 s"}, STRICT, {"spin": "cpu_limit", "spin_in_threads": "cpu_limit"}),
    "processes of strict": ({}, STRICT, {"forks": "processes", "program": "processes"}),
    "processes of default": ({"processes": 4, "threads": 4}, FILES, {"forks": "processes", "threads": "processes"}),
    "threads": ({"threads": 4}, STRICT, {"threads": "processes"}),
    "open_files": ({"open_files": 64}, STRICT, {"descriptors": "open_files", "sockets": "open_files"}),
    "file_size": ({"file_size": "64 KiB"}, FILES, {"long_file": "scratch", "long_hole": "scratch",
                                                             "long_file_with_signal": "file_size"}),
    "scratch": ({}, FILES, {"full_by_one": "scratch", "full_by_many": "scratch"}),
    "scratch_files": ({"scratch_files": 100}, FILES, {"files": "scratch", "folders": "scratch"}),
    "output": ({"output": "64 KiB"}, STRICT, {"to_stderr": "output_limit", "to_stdout": "output_limit", "to_the_libc": "output_limit"}),
}
WAYS = [(limit, way) for limit, (_, _, ways) in MET.items() for way in ways]


class Neighbour:
    """A stream of the pool's other worker."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parts = pool.stream("numbers", 1 << 40)
        self._seen = 0
        self.goes_on()
        assert pool.call("echo", 0) == 0  # the second worker has come
        self._pid = self._busy()

    def _busy(self) -> int:
        return next(worker["pid"] for worker in self._pool.status()["workers"] if worker["state"] == "busy")

    def goes_on(self) -> None:
        assert next(self._parts) == self._seen
        self._seen += 1

    def goes_on_beside(self, method: str, body: Any) -> CallError:
        """How a call ends that meets a limit."""
        with ThreadPoolExecutor(1) as executor:
            met = executor.submit(self._pool.call, method, body, timeout=30)
            while wait([met], 0.005).not_done:  # not without a pause: the neighbour has the same limits
                self.goes_on()
        error = met.exception()
        assert isinstance(error, CallError), f"it ended with {error!r}"
        return error

    def noticed_nothing(self) -> None:
        assert self._busy() == self._pid
        self.goes_on()
        assert self._pool.call("echo", "next") == "next"

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.close()


@pytest.mark.parametrize(("limit", "way"), WAYS, ids=[f"{limit}: {way}" for limit, way in WAYS])
def test_a_limit_that_is_met_is_typed_and_no_neighbour_notices(limit: str, way: str) -> None:
    limits, sandbox, ways = MET[limit]
    if ways[way] == "oom" and cgroup.parents()[1]:
        pytest.skip(f"needs the layer cgroup: {cgroup.parents()[1]}")
    with Pool(SCRIPT, workers=2, sandbox=sandbox, limits=Limits(**limits)) as pool, Neighbour(pool) as neighbour:
        error = neighbour.goes_on_beside("meet", way)
        if isinstance(error, WorkerLost):
            assert error.reason == ways[way] and pool.status()["deaths"] == {ways[way]: 1}
        else:
            assert isinstance(error, ResourceExhausted) and error.bound == ways[way], error
            assert pool.status()["deaths"] == {}
        assert error.message.rpartition("; ")[2].startswith("use less, or raise "), error.message
        neighbour.noticed_nothing()


@pytest.fixture
def narrow() -> Any:
    with Pool(SCRIPT, workers=2, limits=Limits(request="64 KiB", response="64 KiB")) as pool:
        yield pool


@pytest.mark.parametrize("body", [b"x" * (1 << 17), ["x" * 1000] * 200], ids=["bytes", "list"])
def test_a_request_beyond_its_limit_is_refused_and_no_neighbour_notices(narrow: Pool, body: Any) -> None:
    with Neighbour(narrow) as neighbour:
        error = neighbour.goes_on_beside("echo", body)
        assert isinstance(error, PayloadTooLarge)
        neighbour.noticed_nothing()
    assert narrow.status()["deaths"] == {}


@pytest.mark.parametrize("method", ["answer", "answer_in_list", "parts"])
def test_a_response_beyond_its_limit_is_refused_and_no_neighbour_notices(narrow: Pool, method: str) -> None:
    with Neighbour(narrow) as neighbour:
        error = neighbour.goes_on_beside(method, 1 << 17)
        assert isinstance(error, PayloadTooLarge) and error.bound == "response", error
        assert error.message.endswith(", limit is 65536; stream it in parts, or raise limits.response")
        neighbour.noticed_nothing()
    assert narrow.status()["deaths"] == {}


def test_output_below_the_limit_that_kills_is_cut_and_counted() -> None:
    with Pool(SCRIPT.with_name("subject.py"), limits=Limits(output="64 KiB")) as pool:
        assert pool.call("shout", 4) == 4
        assert pool.call("echo", 1) == 1
        assert pool.status()["deaths"] == {}


@pytest.mark.parametrize("way", ["spin", "spin_in_threads"])
def test_a_share_of_the_processor_is_enforced_and_no_neighbour_notices(way: str) -> None:
    folders, refusal = cgroup.parents(also=("cpu",))
    if "cpu" not in folders:
        pytest.skip(f"needs the layer cgroup with its cpu controller: {refusal or 'not granted'}")
    with Pool(SCRIPT, workers=2, limits=Limits(cpus=0.2)) as pool, Neighbour(pool) as neighbour:
        with ThreadPoolExecutor(1) as executor:
            ended = executor.submit(pool.call, "meet", way, timeout=1)
            throttled = 0
            while not throttled and not ended.done():
                neighbour.goes_on()
                for worker in pool._core.supervisor._workers:
                    folder = worker.group._folders["cpu"] if worker.group is not None else ""
                    if worker.pid != neighbour._pid and folder:
                        counted = dict(line.split() for line in Path(folder, "cpu.stat").read_text("ascii").splitlines())
                        throttled = int(counted["nr_throttled"])
        assert throttled
        assert isinstance(ended.exception(), CallError)
        neighbour.noticed_nothing()
