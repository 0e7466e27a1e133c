"""The boxes of the guide's three checklists, each once, and who can tick it: a measurement, or a person.

A person's word holds for `days`, and where it is about code for that code only: `of_code` binds it to the script's digest.
"""

from __future__ import annotations

from typing import NamedTuple

GROUPS = ("development", "deployment", "operations")


class Box(NamedTuple):
    """`title` as in the guide; `days` that a person's record holds, 0 for a box that is measured."""

    name: str
    group: str
    title: str
    days: int = 0
    of_code: bool = False


BOXES = (
    Box("input_validation", "development", "Input validation in all exposed functions"),
    Box("error_messages", "development", "Error messages don't leak sensitive info"),
    Box("pinned_dependencies", "development", "Dependencies are pinned and verified"),
    Box("code_review", "development", "Code reviewed for security issues", days=365, of_code=True),
    Box("static_analysis", "development", "Static analysis tools run (bandit, gosec)"),
    Box("non_root", "deployment", "Running as non-root user"),
    Box("socket_permissions", "deployment", "Socket permissions set to 0600"),
    Box("resource_limits", "deployment", "Resource limits configured"),
    Box("sandboxing", "deployment", "Sandboxing enabled (containers/seccomp)"),
    Box("monitoring", "deployment", "Monitoring and alerting configured", days=180),
    Box("dependency_updates", "operations", "Regular dependency updates", days=90),
    Box("security_patches", "operations", "Security patches applied promptly", days=90),
    Box("audit_review", "operations", "Audit logs reviewed", days=30),
    Box("incident_drill", "operations", "Incident response plan tested", days=365),
    Box("backup", "operations", "Backup and recovery procedures", days=180),
)
BY_NAME = {box.name: box for box in BOXES}
ATTESTED = tuple(box.name for box in BOXES if box.days)
