"""What people run in a worker, run for real under the worker's filter on every CPython here from 3.11 on.

Rules and reasons:
* The child loads the filter by ctypes and nothing else: what passes here owes nothing to our boot code. Only
  the second filter is loaded, which needs no listener; that the first one is a superset of it is shown in
  test_derive.py by simulation.
* A workload that must be refused asserts the errno, so that a wall that stands for another reason is not
  counted.
* Interpreters are found on PATH and among pyenv's versions; libraries are only tried where the interpreter
  has them.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyproc.sandbox import derive, profile

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in profile.MACHINES,
    reason="seccomp needs Linux on x86_64 or aarch64",
)

LOADER = """
import ctypes, os, sys
program, offsets = bytearray.fromhex(sys.argv[1]), [int(o) for o in sys.argv[2].split(",")]
for at in offsets:
    program[at:at + 4] = os.getpid().to_bytes(4, "little")
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
held = Program(len(program) // 8, bytes(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0                                  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(held), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, a filter

def refused(call, *args, error="EPERM", **options):
    import errno
    try:
        found = call(*args, **options)
    except OSError as problem:
        assert problem.errno == getattr(errno, error), problem
    else:
        raise AssertionError(f"{call} gave {found!r}")

def raw(number, *args):
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args]) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return True

def c(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
    return True

exec(compile(sys.stdin.read(), "<workload>", "exec"))
print("done")
"""

ANYWHERE = {
    "imports": """
import argparse, asyncio, collections, concurrent.futures, csv, ctypes.util, dataclasses
import datetime, decimal, email.message, enum, fractions, functools, hashlib, heapq, html.parser
import http.client, inspect, json, logging.config, lzma, multiprocessing, pickle, pathlib
import platform, queue, random, re, secrets, sqlite3, ssl, statistics, string, struct, subprocess
import tempfile, tomllib, typing, unittest.mock, urllib.request, uuid, xml.etree.ElementTree
import zipfile, zlib, zoneinfo
uuid.uuid4(), secrets.token_hex(), random.random(), platform.platform(), hashlib.sha256(b"x").hexdigest()
decimal.Decimal(1) / 7, zlib.compress(b"x" * 10000), lzma.compress(b"y" * 10000)
""",
    "threads": """
import concurrent.futures, os, queue, threading, time
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda n: sum(range(n)), [10000] * 64)) == 64 * sum(range(10000))
condition, event, lock = threading.Condition(), threading.Event(), threading.RLock()
with condition:
    condition.wait(0.01)
threading.Timer(0.01, event.set).start()
assert event.wait(5)
semaphore, barrier, seen = threading.Semaphore(1), threading.Barrier(3), queue.Queue()
crew = [threading.Thread(target=lambda: seen.put(barrier.wait(5))) for _ in range(3)]
[t.start() for t in crew]; [t.join() for t in crew]
assert sorted(seen.get(timeout=5) for _ in crew) == [0, 1, 2]
time.sleep(0.001); threading.get_native_id(); os.sched_yield()
""",
    "asyncio": """
import asyncio, socket
async def main():
    left, right = socket.socketpair()
    reader, mouth = await asyncio.open_connection(sock=left)
    ear, writer = await asyncio.open_connection(sock=right)
    writer.write(b"hello\\n"); await writer.drain()
    assert await asyncio.wait_for(reader.readline(), 5) == b"hello\\n"
    writer.close(); mouth.close()
    assert await asyncio.to_thread(sum, range(100)) == 4950
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(50)))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
asyncio.run(main())
""",
    "ssl": """
import ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context.wrap_bio(incoming, outgoing)
try:
    client.do_handshake()
except ssl.SSLWantReadError:
    pass
assert outgoing.pending > 100
""",
    "sqlite": """
import sqlite3
base = sqlite3.connect(":memory:")
base.execute("create table t (n integer, s text)")
base.executemany("insert into t values (?, ?)", [(n, str(n)) for n in range(1000)])
base.commit()
assert base.execute("select sum(n) from t where s like '9%'").fetchone()[0] > 0
""",
    "tracebacks": """
import json, traceback, warnings
try:
    json.loads("{")
except ValueError:
    assert "return _default_decoder.decode(s)" in traceback.format_exc()  # the line is read now
warnings.warn("seen", stacklevel=1)
""",
    "signals": """
import faulthandler, os, signal, threading, time
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
signal.raise_signal(signal.SIGUSR1)
signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
signal.signal(signal.SIGALRM, lambda *_: seen.append(2))
signal.setitimer(signal.ITIMER_REAL, 0.01)
deadline = time.monotonic() + 10
while len(seen) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
assert seen == [1, 1, 2], seen
faulthandler.enable()
""",
    "asking": """
import ctypes, gc, mmap, os, resource, select, socket, sys, time
time.time(), time.monotonic(), time.process_time(), time.thread_time(), time.clock_getres(4)
time.get_clock_info("monotonic"), os.cpu_count(), os.sched_getaffinity(0), os.getpgid(0), os.getsid(0)
os.getppid(), os.times(), os.uname(), os.getgroups(), resource.getrlimit(resource.RLIMIT_AS)
resource.getrusage(resource.RUSAGE_SELF), resource.prlimit(0, resource.RLIMIT_CPU)
with mmap.mmap(-1, 1 << 20) as memory:
    memory.madvise(mmap.MADV_DONTNEED)
left, right = socket.socketpair()
left.setblocking(False); left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR); left.getpeername()
right.sendall(b"x" * 100)
assert left.recv(100, socket.MSG_DONTWAIT) and not select.select([left], [], [], 0)[0]
left.shutdown(socket.SHUT_RDWR)
assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)(1) == 2
sys.stdout.isatty(), os.listdir(os.path.dirname(os.__file__)), os.path.realpath("/")
read, write = os.pipe(); os.set_blocking(read, False); os.set_inheritable(read, True)
os.dup2(read, os.dup(read)); os.eventfd(0)
blob = [bytes(1 << 20) for _ in range(64)]; del blob; gc.collect()
""",
}

STRICT = {
    "refused": """
import ctypes, fcntl, os, resource, signal, socket, sys, time
refused(open, "/dev/null", "w"); refused(os.mkdir, "/tmp/x"); refused(os.unlink, "/tmp/x")
refused(os.chmod, "/dev/null", 0o666)
refused(socket.socket, socket.AF_INET); refused(socket.socket, socket.AF_UNIX)
refused(socket.socket, socket.AF_ALG)
refused(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
refused(os.memfd_create, "x"); refused(os.ftruncate, 1, 0); refused(os.kill, 1, 0); refused(os.setsid)
refused(os.setuid, 0)
refused(os.getpgid, 1); refused(os.getsid, 1); refused(os.sched_getaffinity, 1)
refused(resource.prlimit, 1, resource.RLIMIT_AS)
refused(c, "setrlimit", 4, bytes(16)); refused(c, "prlimit", 0, 4, bytes(16), None)
refused(time.clock_gettime, -6)
left, right = socket.socketpair()
refused(left.getsockopt, socket.SOL_SOCKET, 77)
refused(left.getsockopt, socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
refused(left.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
refused(left.send, b"x", socket.MSG_OOB)
refused(left.sendmsg, [b"x"]); refused(left.recv, 1, socket.MSG_OOB); refused(left.sendto, b"x", "/tmp/x")
refused(fcntl.fcntl, left, fcntl.F_SETOWN, os.getpid()); refused(fcntl.lockf, left, fcntl.LOCK_SH)
refused(fcntl.ioctl, 0, 0x5412, b"x"); refused(os.execv, sys.executable, [sys.executable])
refused(os.nice, 1)
for op, value in ((4, 1), (1, 0), (22, 2), (24, 0), (67, 1)):
    refused(c, "prctl", op, value, 0, 0, 0)
refused(c, "tgkill", os.getppid(), os.getppid(), 0); c("tgkill", os.getpid(), os.getpid(), 0)
refused(c, "unshare", 0x10000000); refused(c, "madvise", None, 0, 12); c("madvise", None, 0, 4)
refused(c, "mmap", None, 1 << 21, 3, 0x40022, -1, 0)
""",
}

DEFAULT = {
    "files": """
import os, pathlib, shutil, tempfile
with tempfile.TemporaryDirectory() as folder:
    here = pathlib.Path(folder)
    (here / "a").write_text("x" * 1000)
    shutil.copyfile(here / "a", here / "b"); os.rename(here / "b", here / "c")
    os.link(here / "a", here / "d")
    os.symlink("a", here / "e"); os.truncate(here / "c", 10); (here / "f" / "g").mkdir(parents=True)
    assert sorted(p.name for p in here.iterdir()) == ["a", "c", "d", "e", "f"]
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x"); file.flush(); os.fsync(file.fileno())
""",
    "children": """
import asyncio, os, signal, subprocess, sys
command = [sys.executable, "-I", "-c", "print(6 * 7)"]
child = subprocess.run(command, capture_output=True, text=True, timeout=30)
assert child.stdout == "42\\n", child.stderr
assert subprocess.run("exit 3", shell=True, timeout=30).returncode == 3
child = os.fork()
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
sleeper = subprocess.Popen(["sleep", "60"]); sleeper.kill(); assert sleeper.wait(30) == -signal.SIGKILL
async def main():
    command = [sys.executable, "-I", "-c", "print(1)"]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert (await running.communicate())[0] == b"1\\n"
asyncio.run(main())
""",
    "pools": """
import concurrent.futures, multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
""",
    "network": """
import asyncio, socket
async def main():
    async def echo(reader, writer):
        writer.writelines([await reader.readline(), b"end"]); await writer.drain(); writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    assert await asyncio.wait_for(reader.read(), 5) == b"hello\\nend"
    writer.close(); server.close()
asyncio.run(main())
here, there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab")
here.bind(("127.0.0.1", 0)); there.sendto(b"x", here.getsockname()); assert here.recv(1) == b"x"
socket.create_server(("127.0.0.1", 0)).close()
""",
    "refused": """
import fcntl, os, resource, signal, socket, tempfile
with tempfile.NamedTemporaryFile() as file:
    refused(os.chmod, file.name, 0o600); refused(os.fchmod, file.fileno(), 0o600)
    refused(os.utime, file.name)
    refused(fcntl.lockf, file, fcntl.LOCK_EX); refused(fcntl.flock, file, fcntl.LOCK_EX)
refused(os.kill, -1, 0); refused(os.setsid); refused(os.setpgid, 0, 0); refused(c, "setrlimit", 4, bytes(16))
for arguments in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_DGRAM),
                  (socket.AF_NETLINK, socket.SOCK_RAW),
                  (40, socket.SOCK_STREAM), (socket.AF_ALG, 5), (socket.AF_INET, socket.SOCK_STREAM, 262),
                  (socket.AF_INET, socket.SOCK_DGRAM, 136)):
    refused(socket.socket, *arguments)
with socket.socket() as plain:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF, 26):
        refused(plain.setsockopt, socket.SOL_SOCKET, option, 1 << 20)
read, write = os.pipe()
refused(fcntl.fcntl, write, 1031, 1 << 20); refused(os.memfd_create, "x")
refused(c, "prctl", 1, 0, 0, 0, 0); refused(c, "inotify_init1", 0); refused(c, "unshare", 0x10000000)
""",
}

LIBRARIES = {
    "numpy": """
import numpy
rng = numpy.random.default_rng(1)
a = rng.random((400, 400))
assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(400)); numpy.linalg.svd(a[:100, :100])
numpy.fft.fft(a)
numpy.save(__import__("io").BytesIO(), a)
""",
    "sklearn": """
import numpy, sklearn.cluster, sklearn.ensemble, sklearn.linear_model
rng = numpy.random.default_rng(1)
x = rng.random((200, 5)); y = x[:, 0] > 0.5
assert sklearn.ensemble.RandomForestClassifier(10, n_jobs=2, random_state=1).fit(x, y).score(x, y) > 0.9
sklearn.cluster.KMeans(3, n_init=2, random_state=1).fit(x)
sklearn.linear_model.LogisticRegression().fit(x, y)
""",
}


@functools.cache
def interpreters() -> dict[str, str]:
    """Minor version to executable, from 3.11 on; the one that runs the tests comes first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [sys.executable, *(shutil.which(f"python3.{minor}") for minor in range(11, 20))]
    candidates += sorted(map(str, pyenv.glob("versions/3.*/bin/python3")))
    found: dict[str, str] = {}
    for path in filter(None, candidates):
        asked = subprocess.run(
            [path, "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if asked.returncode == 0 and tuple(map(int, asked.stdout.split())) >= (3, 11):
            found.setdefault(".".join(asked.stdout.split()), path)
    return found


def run(python: str, name: str, workload: str, scratch: Path) -> subprocess.CompletedProcess[str]:
    program, offsets = derive.worker_template(profile.shipped(name))
    clean = {
        "PATH": os.environ.get("PATH", ""),
        "OPENBLAS_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "TMPDIR": str(scratch),
    }
    command = [python, "-I", "-B", "-c", LOADER, program.hex(), ",".join(map(str, offsets))]
    return subprocess.run(command, input=workload, capture_output=True, text=True, timeout=120, env=clean)


def cases() -> list[object]:
    of = {"strict": ANYWHERE | STRICT, "default": ANYWHERE | DEFAULT}
    return [
        pytest.param(name, version, workload, id=f"{name}-{version}-{title}")
        for name, workloads in of.items()
        for version in interpreters()
        for title, workload in workloads.items()
    ]


@pytest.mark.parametrize(("name", "version", "workload"), cases())
def test_standard_library_works_under_the_worker_filter(
    name: str, version: str, workload: str, tmp_path: Path
) -> None:
    done = run(interpreters()[version], name, workload, tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]


@pytest.mark.parametrize("name", ["strict", "default"])
@pytest.mark.parametrize("library", list(LIBRARIES))
def test_numerical_libraries_work_under_the_worker_filter(name: str, library: str, tmp_path: Path) -> None:
    if subprocess.run(
        [sys.executable, "-c", f"import {library}"], capture_output=True, timeout=120
    ).returncode:
        pytest.skip(f"{library} is not installed for this interpreter")
    done = run(sys.executable, name, LIBRARIES[library], tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]


def test_abort_ends_by_its_signal_under_the_pinned_pid(tmp_path: Path) -> None:
    done = run(sys.executable, "strict", "import os, resource; os.abort()", tmp_path)
    assert done.returncode == -6, done.stderr[-2000:]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 are x86_64's other calls")
def test_x32_call_ends_the_process(tmp_path: Path) -> None:
    done = run(sys.executable, "default", f"raw({0x40000000 + 39})", tmp_path)
    assert done.returncode == -31, done.stderr[-2000:]


def test_unknown_call_is_answered_as_by_an_older_kernel(tmp_path: Path) -> None:
    done = run(sys.executable, "strict", "refused(raw, 1000, error='ENOSYS')", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
