"""The first lines of everything that is exported: made by what, of which profile, and what is not enforced here. Pure."""

from __future__ import annotations

from pyproc.errors import ConfigError
from pyproc.policy.subject import Policy

NOT_ENFORCED = "compiled, not enforced"


def lines(policy: Policy, title: str, *notes: str) -> list[str]:
    """One fact a line, each of printable characters, without a sign of comment before it."""
    return [_printable(text) for text in (
        f"{title}, of the policy of pool {policy.pool}",
        f"made by pyproc {policy.version} of profile {policy.profile}, filter {policy.filter_sha256} ({policy.rules.machine})",
        *notes)]


def comment(policy: Policy, title: str, *notes: str, sign: str = "#") -> str:
    """`lines` as a block of comments, with a line feed at its end."""
    return "".join(f"{sign} {line}\n" for line in lines(policy, title, *notes))


def refuse(format: str, what: str, value: str, limit: str, remedy: str) -> ConfigError:
    """The error for a value that a format cannot carry."""
    return ConfigError(f"{what} {value!r} cannot be written in {format}: {limit}; {remedy}")


def carried(format: str, what: str, value: str, *, forbidden: str = "") -> str:
    """`value`, if it holds text without control characters and without `forbidden`. Raises ConfigError."""
    bad = next((c for c in value if c in forbidden or ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000), None)
    if bad is not None:
        raise refuse(format, what, value, f"it holds {bad!r}", "rename the file, or leave it out of sandbox.read")
    return value


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
