"""What programs ask through os, signal, time and socket beyond the plainest things."""

import os
import select
import signal
import socket
import sys
import time

signal.alarm(0), signal.getitimer(signal.ITIMER_REAL), signal.sigpending()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.raise_signal(signal.SIGUSR2)
assert signal.sigtimedwait({signal.SIGUSR2}, 1).si_signo == signal.SIGUSR2
time.clock_getres(time.CLOCK_PROCESS_CPUTIME_ID), os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getresuid(), os.getresgid(), os.getpgrp(), os.getpid()
os.umask(os.umask(0o022))
os.closerange(200, 220)

here = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
os.fstatvfs(here), os.statvfs("/"), os.getcwd(), os.access(os.__file__, os.R_OK)
os.access("os.py", os.R_OK, dir_fd=here), os.access(os.__file__, os.R_OK, effective_ids=True)
os.stat("os.py", dir_fd=here), os.lstat(os.__file__)
for name in ("os.py", "no such file"):
    try:
        os.readlink(name, dir_fd=here)
    except OSError:
        pass
with open(os.__file__, "rb") as file:
    buffers = [bytearray(10), bytearray(20)]
    assert os.readv(file.fileno(), buffers) == os.preadv(file.fileno(), buffers, 0) == 30
    assert len(os.pread(file.fileno(), 5, 0)) == 5

read, write = os.pipe()
assert os.writev(write, [b"a", b"bc"]) == 3
os.dup2(write, os.dup(write), inheritable=False)
poll = select.poll()
poll.register(read, select.POLLIN)
assert poll.poll(0) and select.select([read], [], [], 0)[0]
with select.epoll() as epoll:
    epoll.register(read, select.EPOLLIN)
    assert epoll.poll(0)
left, right = socket.socketpair()
left.send(b"x")
assert right.recvmsg(10)[0] == b"x"
sys.stdin.isatty()
