"""Resource limits, hard = soft, so that nothing inside can raise them again; read back after setting.

RLIMIT_CPU is the exception: hard = soft + 1 s, else the kernel sends a plain SIGKILL and the death could not be told
from any other. The values come from the plan; a limit that is already lower stays as it is.
"""

from __future__ import annotations

import resource


def apply(limits: dict[str, list[int]]) -> None:
    """Set each RLIMIT_<name> to [soft, hard]. Raises OSError, ValueError."""
    for name, (soft, hard) in limits.items():
        number = getattr(resource, "RLIMIT_" + name)
        ceiling = resource.getrlimit(number)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(number, (soft, hard))
        if resource.getrlimit(number) != (soft, hard):
            raise OSError(1, f"RLIMIT_{name} did not take {soft}:{hard}")
