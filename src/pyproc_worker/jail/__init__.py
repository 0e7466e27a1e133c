"""Mechanism of the sandbox: executes a plan, decides nothing.

The supervisor computes the plan; the modules here carry it out inside the process that is to be confined, in the one
order that works (`apply`). Every setting that the kernel lets us read back is read back. Standard library only: this
code runs before the sandbox stands, so it imports nothing that a dependency could have replaced.
"""
