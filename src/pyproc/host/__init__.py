"""The only door to the kernel on the supervisor's side: pidfds, /proc, control groups, the seccomp listener, spawning.

Each module decides nothing beyond its one subject and calls the kernel through `libc.kernel`, where a test can make any call
fail. Importing it works everywhere; using it needs Linux.
"""
