"""What the attacks are after: made on the host before, removed after. Nothing of it is anyone else's.

    with Targets() as targets:      files, listeners, a victim process, SysV shared memory, a secret in the environment
        targets.map()               what an attack may know (JSON), the token itself left out

Rules and reasons:
* All of it belongs to the uid under which controls run, so that only the sandbox stands between attack and target:
  for root that is an unused uid, never root itself.
* The directory is open to every uid, or file modes would do the sandbox's work.
* The token is random: an answer that holds it was really read.
* The victim ends when its stdin ends, whatever becomes of us.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any, Final

from pyproc.attack import corpus, plain
from pyproc.attack.prelude import PRELUDE
from pyproc.host import procfs

SECRET_VARIABLE: Final = "PYPROC_ATTACK_SECRET"  # noqa: S105 - the name of a variable
IPC_RMID: Final = 0

VICTIM: Final = (
    PRELUDE
    + r"""
def attack(T):
    buffer = ctypes.create_string_buffer(T["token"].encode(), 64)
    libc.shmat.restype = ctypes.c_void_p
    identity = sc("shmget", T["shm_key"], 64, 0o1600)
    ctypes.memmove(libc.shmat(identity, None, 0), T["token"].encode(), len(T["token"]))
    os.write(1, b"%d %d\n" % (ctypes.addressof(buffer), identity))
    while os.read(0, 1):
        pass
    return "ended"
"""
)


class Targets:
    """The targets of one run of the corpus; a context manager."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.scratch = ""
        self.secret_fd = -1
        self._known: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Targets:
        try:
            self._files()
            self._sockets()
            self._environment()
            self._victim()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def map(self, *, scratch: str | None = None) -> dict[str, Any]:
        """What an attack is told. `scratch`: the writable place where it runs; the host's own if None."""
        return {**self._known, "scratch": self.scratch if scratch is None else scratch}

    def control_environment(self) -> dict[str, str]:
        return {SECRET_VARIABLE: self.token}

    def renew(self) -> None:
        """Put back what an attack that works takes away, so that the next finds the same."""
        uid = plain.plain_uid()
        for name in ("secret", "shared", "spare"):
            path = Path(self._known[name])
            if not path.exists() or path.stat().st_size == 0:
                path.write_text(self.token)
                path.chmod(0o644)
                os.chown(path, uid, uid if uid == plain.PLAIN_UID else -1)
        for name in ("link", "hard"):
            Path(self.scratch, name).unlink(missing_ok=True)

    def _files(self) -> None:
        uid = plain.plain_uid()
        base = Path(tempfile.mkdtemp(prefix="pyproc-attack-"))
        self._stack.callback(shutil.rmtree, base, ignore_errors=True)
        scratch = base / "scratch"
        scratch.mkdir()
        self.scratch = str(scratch)
        for path in (base, scratch):
            path.chmod(0o755)
            os.chown(path, uid, uid if uid == plain.PLAIN_UID else -1)
        self._known = {name: str(base / name) for name in ("secret", "shared", "spare")}
        self.renew()
        for name in ("pyproc_attack_target", "pyproc_attack_here"):
            (base / f"{name}.py").write_text(f"token = {self.token!r}\n")
        self.secret_fd = os.open(self._known["secret"], os.O_RDONLY)
        directory_fd = os.open(base, os.O_RDONLY)
        for fd in (self.secret_fd, directory_fd):
            os.set_inheritable(fd, True)  # what a careless host leaves open
            self._stack.callback(os.close, fd)
        self.left_open = (self.secret_fd, directory_fd)
        self._known |= {
            "token": self.token,
            "numbers": corpus.numbers(),
            "host_pid": os.getpid(),
            "host_name": os.uname().nodename,
            "uid": uid,
            "host_directory": str(base),
            "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in procfs.KINDS},
            "groups": Path("/proc/self/cgroup").read_text("ascii", "replace"),
        }

    def _sockets(self) -> None:
        base = self._known["host_directory"]
        name = f"pyproc-attack-{secrets.token_hex(8)}"
        for key, kind, address in (
            ("tcp_port", (socket.AF_INET, socket.SOCK_STREAM), ("127.0.0.1", 0)),
            ("udp_port", (socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", 0)),
            ("unix_path", (socket.AF_UNIX, socket.SOCK_STREAM), f"{base}/stream"),
            ("unix_datagram", (socket.AF_UNIX, socket.SOCK_DGRAM), f"{base}/datagram"),
            ("unix_abstract", (socket.AF_UNIX, socket.SOCK_STREAM), "\0" + name),
        ):
            listener = self._stack.enter_context(socket.socket(*kind))
            listener.bind(address)
            if kind[1] == socket.SOCK_STREAM:
                listener.listen(1024)  # the backlog answers: no thread need accept
            if kind[0] == socket.AF_INET:
                self._known[key] = listener.getsockname()[1]
            elif key == "unix_abstract":
                self._known[key] = name
            else:
                os.chmod(str(address), 0o777)  # noqa: S103 - modes must not do the sandbox's work
                self._known[key] = str(address)

    def _environment(self) -> None:
        previous = os.environ.get(SECRET_VARIABLE)
        os.environ[SECRET_VARIABLE] = self.token
        self._known["secret_variable"] = SECRET_VARIABLE
        if previous is None:
            self._stack.callback(os.environ.pop, SECRET_VARIABLE, None)
        else:
            self._stack.callback(os.environ.__setitem__, SECRET_VARIABLE, previous)

    def _victim(self) -> None:
        self._known["shm_key"] = 0x50000000 | secrets.randbits(24)
        victim = plain.start(VICTIM, self._known, env=self.control_environment())
        self._stack.callback(_end, victim)
        line = victim.stdout.readline() if victim.stdout else b""
        fields = line.split()
        if len(fields) != 2:
            raise RuntimeError(f"the victim did not start, it said {line!r}: run its order by hand")
        address, segment = map(int, fields)
        self._stack.callback(_remove_segment, segment)
        self._known |= {"victim": victim.pid, "victim_address": address}


def _end(victim: Popen[bytes]) -> None:
    victim.kill()
    for stream in (victim.stdin, victim.stdout):
        if stream is not None:
            stream.close()
    victim.wait()


def _remove_segment(segment: int) -> None:
    ctypes.CDLL(None).shmctl(segment, IPC_RMID, None)
