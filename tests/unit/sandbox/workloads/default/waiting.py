"""Waiting for children and signals, priorities, timers as descriptors, messages."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading

assert subprocess.run("sleep 0.01 & wait", shell=True, timeout=30).returncode == 0
child = os.fork()
if child == 0:
    os._exit(3)
assert os.waitid(os.P_PID, child, os.WEXITED).si_status == 3
child = os.fork()
if child == 0:
    os._exit(0)
os.close(os.pidfd_open(child))
os.waitpid(child, 0)

signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)  # repeated: one that comes too early must not hang the wait
signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)

policy = os.sched_getscheduler(0)
os.sched_getparam(0), os.sched_get_priority_min(policy), os.sched_get_priority_max(policy)
os.sched_setaffinity(0, os.sched_getaffinity(0))
if hasattr(os, "timerfd_create"):  # 3.13
    timer = os.timerfd_create(1)
    os.timerfd_settime(timer, initial=0.001)
    os.timerfd_gettime(timer), os.read(timer, 8), os.close(timer)

left, right = socket.socketpair()
left.sendmsg([b"a", b"b"])
assert right.recv(2) == b"ab"
threads = [threading.Thread(target=sum, args=([1],)) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]


async def main():
    running = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", "")
    assert await running.wait() == 0


asyncio.run(main())
