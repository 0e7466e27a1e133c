import fcntl
import os
import resource
import socket
import sys
import time

from under import c, refused

refused(open, "/dev/null", "w")
refused(os.mkdir, "/tmp/x")
refused(os.unlink, "/tmp/x")
refused(os.chmod, "/dev/null", 0o666)
refused(socket.socket, socket.AF_INET)
refused(socket.socket, socket.AF_UNIX)
refused(socket.socket, socket.AF_ALG)
refused(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
refused(os.memfd_create, "x")
refused(os.ftruncate, 1, 0)
refused(os.kill, 1, 0)
refused(os.setsid)
refused(os.setuid, 0)
refused(os.getpgid, 1)
refused(os.getsid, 1)
refused(os.sched_getaffinity, 1)
refused(resource.prlimit, 1, resource.RLIMIT_AS)
refused(c, "setrlimit", 4, bytes(16))
refused(c, "prlimit", 0, 4, bytes(16), None)
refused(time.clock_gettime, -6)
left, right = socket.socketpair()
refused(left.getsockopt, socket.SOL_SOCKET, 77)
refused(left.getsockopt, socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
refused(left.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
refused(left.send, b"x", socket.MSG_OOB)
refused(left.sendmsg, [b"x"])
refused(left.recv, 1, socket.MSG_OOB)
refused(left.sendto, b"x", "/tmp/x")
refused(fcntl.fcntl, left, fcntl.F_SETOWN, os.getpid())
refused(fcntl.lockf, left, fcntl.LOCK_SH)
refused(fcntl.ioctl, 0, 0x5412, b"x")
refused(os.execv, sys.executable, [sys.executable])
refused(os.nice, 1)
for op, value in ((4, 1), (1, 0), (22, 2), (24, 0), (67, 1)):
    refused(c, "prctl", op, value, 0, 0, 0)
refused(c, "tgkill", os.getppid(), os.getppid(), 0)
c("tgkill", os.getpid(), os.getpid(), 0)
refused(c, "unshare", 0x10000000)
refused(c, "madvise", None, 0, 12)
c("madvise", None, 0, 4)
refused(c, "mmap", None, 1 << 21, 3, 0x40022, -1, 0)
