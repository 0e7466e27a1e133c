import fcntl
import os
import socket
import tempfile

from under import c, refused

with tempfile.NamedTemporaryFile() as file:
    refused(os.chmod, file.name, 0o600)
    refused(os.fchmod, file.fileno(), 0o600)
    refused(os.utime, file.name)
    refused(fcntl.lockf, file, fcntl.LOCK_EX)
    refused(fcntl.flock, file, fcntl.LOCK_EX)
refused(os.kill, -1, 0)
refused(os.setsid)
refused(os.setpgid, 0, 0)
refused(c, "setrlimit", 4, bytes(16))
for arguments in (
    (socket.AF_INET, socket.SOCK_RAW, 1),
    (socket.AF_PACKET, socket.SOCK_DGRAM),
    (socket.AF_NETLINK, socket.SOCK_RAW),
    (40, socket.SOCK_STREAM),
    (socket.AF_ALG, 5),
    (socket.AF_INET, socket.SOCK_STREAM, 262),
    (socket.AF_INET, socket.SOCK_DGRAM, 136),
):
    refused(socket.socket, *arguments)
with socket.socket() as plain:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF, 26):
        refused(plain.setsockopt, socket.SOL_SOCKET, option, 1 << 20)
read, write = os.pipe()
refused(fcntl.fcntl, write, 1031, 1 << 20)
refused(os.memfd_create, "x")
refused(c, "prctl", 1, 0, 0, 0, 0)
refused(c, "inotify_init1", 0)
refused(c, "unshare", 0x10000000)
