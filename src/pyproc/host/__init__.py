"""The only door to the kernel on the supervisor's side: pidfds, /proc, cgroups, the seccomp listener, spawning."""
