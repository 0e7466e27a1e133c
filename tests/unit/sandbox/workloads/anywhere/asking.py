import ctypes
import gc
import mmap
import os
import resource
import select
import socket
import sys
import time

time.time(), time.monotonic(), time.process_time(), time.thread_time(), time.clock_getres(4)
time.get_clock_info("monotonic"), os.cpu_count(), os.sched_getaffinity(0), os.getpgid(0), os.getsid(0)
os.getppid(), os.times(), os.uname(), os.getgroups(), resource.getrlimit(resource.RLIMIT_AS)
resource.getrusage(resource.RUSAGE_SELF), resource.prlimit(0, resource.RLIMIT_CPU)
with mmap.mmap(-1, 1 << 20) as memory:
    memory.madvise(mmap.MADV_DONTNEED)
left, right = socket.socketpair()
left.setblocking(False)
left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
left.getpeername()
right.sendall(b"x" * 100)
assert left.recv(100, socket.MSG_DONTWAIT) and not select.select([left], [], [], 0)[0]
left.shutdown(socket.SHUT_RDWR)
assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)(1) == 2
sys.stdout.isatty(), os.listdir(os.path.dirname(os.__file__)), os.path.realpath("/")
read, write = os.pipe()
os.set_blocking(read, False)
os.set_inheritable(read, True)
os.dup2(read, os.dup(read))
os.eventfd(0)
blob = [bytes(1 << 20) for _ in range(64)]
del blob
gc.collect()
