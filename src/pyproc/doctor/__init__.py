"""What this machine enforces for a configuration, how exposed that leaves it, and the guide's three checklists.

    survey, places, lint ──▶ facts ──▶ exposure ─┐
    (look at the machine)     │                  ├─▶ report (text)
    records (a file) ─────────┴─────▶ checklist ─┘      accepted: what somebody has a reason for

Facts are measured in the run that reports them: on a pool that is started, not in a file that says what should be. What
judges them (exposure, checklist, accepted, attestation) is pure.
"""
