"""What a worker may ask of the kernel, and how that is put before it: profiles, filters, plan, attestation.

Rules: policy is computed here, outside, as plain values and bytes; nothing in this package imports user code
or `pyproc_worker`. The profile says what is allowed and why, `seccomp` makes a program of it, `derive` makes
of one profile the two programs that are loaded. Loading them is the boot's business.
"""
