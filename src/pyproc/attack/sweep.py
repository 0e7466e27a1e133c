"""Every system call number of every gate of this machine, really called, and compared with what the profile says.

    native numbers   one call after the other in a worker of the pool that is tested; what ends a worker, in a call of its own
    i386, x32        each number in a forked child of a plain process under the first filter of this profile: there it must die

Rules and reasons:
* The expected answer is that of the two filters' texts (`sandbox.simulate`), the observed one is the kernel's: an errno, a
  result, a death. A question to the supervisor is expected to be refused: no step of a start is open.
* A call is harmless by its arguments: all of them -1, which is no descriptor, no address and no flag. Where the filter looks
  at arguments it is these that it judges; the corpus tries the others.
* An allowed call must not be answered EPERM or ENOSYS: with these arguments the kernel has other answers for it.
* Foreign numbers die, each with its process, and a pool is given up after a few deaths. So they are called outside of
  the pool, under the very bytes that its zygote loads first; the corpus calls some of them inside (class abi).
* 335 and 336 (uretprobe, uprobe) are not called: the kernel enters them by a trap of its own and ends who calls by hand.
"""

from __future__ import annotations

import errno
import json
import platform
import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from typing import Any, Final

from pyproc.attack import plain
from pyproc.attack.prelude import PRELUDE
from pyproc.attack.run import CALL_SECONDS, CallingPool, PoolFactory
from pyproc.attack.targets import Targets
from pyproc.errors import DeadlineExceeded, WorkerLost
from pyproc.sandbox import derive, seccomp
from pyproc.sandbox.rules import ACTION_MASK, ALLOW, ERRNO, LOG, NOTIFY, Profile, syscall_table

BEYOND: Final = 32  # numbers above the newest that the tables know: they must be answered ENOSYS
X32_ONLY: Final = range(512, 560)
SKIPPED: Final[dict[str, Mapping[int, str]]] = {
    "x86_64": dict.fromkeys((335, 336), "uprobes enter it by a trap; the kernel ends who calls it by hand, filter or not")}
ENDS: Final = frozenset({"exit", "exit_group", "rt_sigreturn", "vfork", "pause"})  # where they are allowed nobody answers
ALLOWED: Final = (ALLOW, LOG)
ARGUMENTS: Final[dict[str, list[int | None]]] = {  # None: the address of an empty page
    "futex": [None, 1, 0, 0, 0, 0],  # FUTEX_WAKE; an unknown command is ENOSYS of the kernel's own
}
END_SECONDS: Final = 0.5
ENDINGS: Final = ("allowed", "refused", "killed")

FOREIGN: Final = PRELUDE + r"""
import select

GATES = {
    "i386": lambda number: machine_code(b"\x53\xb8" + struct.pack("=I", number) + b"\x31\xdb\x31\xc9\x31\xd2\xcd\x80\x5b\xc3"),
    "x32": lambda number: number_call(0x40000000 | number, -1, -1, -1, -1, -1, -1),
}

def attack(T):
    program = ctypes.create_string_buffer(bytes.fromhex(T["program"]))
    header = ctypes.create_string_buffer(struct.pack("=H6xQ", len(T["program"]) // 16, ctypes.addressof(program)))
    libc.prctl(38, 1, 0, 0, 0)
    ends = []
    for gate, number in T["calls"]:
        child = os.fork()
        if child == 0:
            try:
                if libc.syscall(T["numbers"]["seccomp"], 1, 0, header):
                    os._exit(99)
                GATES[gate](number)
            finally:
                os._exit(0)
        handle = os.pidfd_open(child)
        if not select.select([handle], [], [], 0.5)[0]:  # it was let by, and waits for something
            os.kill(child, signal.SIGKILL)
        os.close(handle)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return json.dumps(ends)
"""


@dataclass(slots=True)
class Sweep:
    """Of one gate: how many numbers were called, how they ended, what was not called and why, and what differed."""

    gate: str
    ends: Counter[str] = field(default_factory=Counter)
    skipped: dict[int, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def called(self) -> int:
        return sum(self.ends.values())

    def count(self, number: int, name: str, expected: str, observed: str) -> None:
        """One number was called."""
        self.ends[observed.partition(" ")[0]] += 1
        if expected != observed:
            self.differences.append(f"{self.gate} {number} ({name}): the profile says {expected}, the kernel {observed}")

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {"called": self.called, **self.ends, "skipped": {str(n): why for n, why in self.skipped.items()},
                "differences": self.differences}


def sweep(pool_factory: PoolFactory, targets: Targets, profile: Profile, *, foreign: bool = True) -> list[Sweep]:
    """All gates of this machine, or the native one alone, under `profile`, which is that of the factory's pools. About 3 s."""
    first, second = derive.zygote_filter(profile), derive.worker_template(profile)[0]
    machine = platform.machine()
    names = {number: name for name, number in syscall_table(machine).items()}
    native = Sweep(machine, skipped=dict(SKIPPED.get(machine, {})))
    numbers = [n for n in range(max(names) + 1 + BEYOND) if n not in native.skipped]
    orders = {n: ARGUMENTS.get(names.get(n, ""), [-1] * 6) for n in numbers}
    expected = {n: _expected(first, second, n, orders[n], seccomp.AUDIT_ARCH[machine]) for n in numbers}
    alone = {n for n in numbers if expected[n] == "killed" or (names.get(n) in ENDS and expected[n] == "allowed")}
    with as_file(files("pyproc.attack") / "runner_worker.py") as script:
        with pool_factory(script, {}) as pool:
            asked = [n for n in numbers if n not in alone]
            answers = pool.call("call_numbers", [[n, orders[n]] for n in asked], timeout=CALL_SECONDS)
        observed = dict(zip(asked, map(_observed, answers), strict=True))
        for n in sorted(alone):
            with pool_factory(script, {}) as pool:
                observed[n] = _ended(pool, n, orders[n])
    for n in numbers:
        native.count(n, names.get(n, "unknown"), expected[n], observed[n])
    return [native, *(_foreign(targets, first, max(names)) if foreign and machine == "x86_64" else ())]


def _expected(first: bytes, second: bytes, number: int, arguments: Iterable[int | None], arch: int) -> str:
    """Of two filters the strictest answer counts, of two errnos that of the filter that was loaded last."""
    given = [1 << 46 if a is None else a & (1 << 64) - 1 for a in arguments]
    answers = [seccomp.simulate(program, number, given, arch) for program in (second, first)]
    action = min(answers, key=lambda answer: (answer & ACTION_MASK) - (1 << 32) * ((answer & ACTION_MASK) >> 31))
    match action & ACTION_MASK:
        case kind if kind in ALLOWED:
            return "allowed"
        case kind if kind == NOTIFY:
            return "refused EPERM"
        case kind if kind == ERRNO:
            return f"refused {errno.errorcode[action & 0xFFFF]}"
    return "killed"


def _observed(result: int) -> str:
    if -result in (errno.EPERM, errno.ENOSYS):
        return f"refused {errno.errorcode[-result]}"
    return "allowed"


def _ended(pool: CallingPool, number: int, arguments: list[int | None]) -> str:
    """What became of a call that nobody answers if it is made."""
    try:
        [answer] = pool.call("call_numbers", [[number, arguments]], timeout=END_SECONDS)
    except WorkerLost as lost:
        return "killed" if lost.reason == "seccomp" else "allowed"
    except DeadlineExceeded:
        return "allowed"  # it did not come back
    return _observed(answer)


def _foreign(targets: Targets, program: bytes, newest: int) -> list[Sweep]:
    sweeps = {gate: Sweep(gate) for gate in ("i386", "x32")}
    calls = [("i386", n) for n in range(newest + 1 + BEYOND)]
    calls += [("x32", n) for n in (*range(newest + 1 + BEYOND), *(n for n in X32_ONLY if n > newest + BEYOND))]
    order = {**targets.map(), "program": program.hex(), "calls": calls}
    ends = plain.answer(plain.start(FOREIGN, order))
    if not ends.startswith("["):
        for swept in sweeps.values():
            swept.differences.append(f"{swept.gate}: the numbers could not be called: {ends[:200]}")
        return list(sweeps.values())
    for (gate, number), status in zip(calls, json.loads(ends), strict=True):
        died = "killed" if status == -signal.SIGSYS else f"allowed (status {status})"
        sweeps[gate].count(number, "foreign", "killed", died)
    return list(sweeps.values())
