"""Everything that doctor found, as one value, and that as text for people or as a document. Pure.

Text: columns that stay aligned in colour, each failure with how to mend it; lines of the exposure that cost nothing are left to
the document. Colour says nothing that the words do not say too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyproc.doctor import exposure
from pyproc.doctor.accepted import Acceptance
from pyproc.doctor.boxes import GROUPS
from pyproc.doctor.checklist import FAIL, NOT_APPLICABLE, PASS, Finding
from pyproc.doctor.exposure import Row
from pyproc.doctor.facts import Facts
from pyproc.sandbox.plan import LayerState

Paint = Callable[[str, str], str]  # (text, colour) -> text
Table = Callable[[Sequence[tuple[str, ...]]], str]
COLOURS = {"enforced": "green", "missing": "red", "off": "yellow", PASS: "green", FAIL: "red", NOT_APPLICABLE: "cyan"}
_CELL = re.compile(rf"(?<=  )(?:{'|'.join(COLOURS)})(?=  |,|$)")  # columns are two blanks apart


@dataclass(frozen=True)
class Pool:
    """One pool: its facts, every line, and which lines somebody accepts, with the reason."""

    facts: Facts
    rows: Sequence[Row]
    reasons: Mapping[str, str]

    @property
    def exposure(self) -> float:
        """0 closed, 10 open."""
        return exposure.total(list(self.rows))

    @property
    def accepted(self) -> float:
        """The part of it that somebody has accepted."""
        return exposure.total([row for row in self.rows if row.name in self.reasons])

    def above(self, limit: float) -> bool:
        """Whether what nobody has accepted is more than `limit`."""
        return round(self.exposure - self.accepted, 2) > limit


@dataclass(frozen=True)
class Report:
    """`remedies`: missing layer -> how to get it; `needs`: layer -> what it needs of the kernel; `limit`: of --fail-above."""

    time: str
    kernel: str
    uid: int
    landlock_abi: int
    needs: Mapping[str, str]
    remedies: Mapping[str, str]
    pools: Mapping[str, Pool]
    checklist: Sequence[Finding]
    acceptance: Acceptance
    limit: float

    @property
    def refusal(self) -> str:
        """Why the first pool that does not start refuses, or ""."""
        return next((pool.facts.refusal for pool in self.pools.values() if pool.facts.refusal), "")

    @property
    def above(self) -> list[str]:
        """The pools above the limit."""
        return [name for name, pool in self.pools.items() if pool.above(self.limit)]


def document(report: Report) -> dict[str, Any]:
    """For --json. `layers` are those of the first pool."""
    pools = {name: _pool_document(pool, report) for name, pool in report.pools.items()}
    return {
        "ok": not report.refusal and not report.above, "time": report.time, "refusal": report.refusal, "kernel": report.kernel,
        "uid": report.uid, "landlock_abi": report.landlock_abi, "layers": next(iter(pools.values()))["layers"], "pools": pools,
        "fail_above": report.limit, "above": report.above,
        "checklist": [{**found._asdict(), "evidence": list(found.evidence)} for found in report.checklist],
        "expired": [{"check": entry.check, "pool": entry.pool, "until": str(entry.until)} for entry in report.acceptance.expired],
    }


def _pool_document(pool: Pool, report: Report) -> dict[str, Any]:
    layers = {name: {"state": layer.state, "wanted": layer.wanted, "needs": report.needs[name], "detail": layer.detail,
                     "remedy": report.remedies.get(name, "") if layer.state == "missing" else ""}
              for name, layer in pool.facts.layers.items()}
    return {"exposure": pool.exposure, "accepted": pool.accepted, "measured": "pool" if pool.facts.measured else "plan",
            "refusal": pool.facts.refusal, "profile": pool.facts.profile, "layers": layers,
            "lines": [{**row._asdict(), "accepted": pool.reasons.get(row.name, "")} for row in pool.rows]}


def text(report: Report, table: Table, paint: Paint) -> str:
    """For people. `table` aligns columns and escapes what a terminal obeys; `paint` escapes too, and colours."""
    lines = [paint(f"kernel {report.kernel}, Landlock ABI {report.landlock_abi}, uid {report.uid}", "bold"), ""]
    lines += _layers(report, table, paint)
    for name, pool in report.pools.items():
        lines += ["", *_pool(name, pool, table, paint)]
    lines += ["", *_checklist(report.checklist, table, paint)]
    lines += ["", *(paint(f"no longer accepted: {entry.check}, since its last day {entry.until}: {entry.reason}", "plain")
                    for entry in report.acceptance.expired)]
    for name in report.above:
        lines.append(paint(f"pool {name} is above --fail-above {report.limit:g}", "red"))
    lines.append(paint(f"a pool would refuse to start: {report.refusal}", "red") if report.refusal
                 else paint("a pool can start here" if len(report.pools) == 1 else "the pools can start here", "green"))
    return "\n".join(lines)


def _layers(report: Report, table: Table, paint: Paint) -> list[str]:
    """One table of all pools: a column for each."""
    pools = report.pools
    one = next(iter(pools.values())).facts.layers
    names = [name if len(pools) > 1 else "STATE" for name in pools]
    rows = [("LAYER", *names, "WANTED", "NEEDS")]
    for name in one:
        states = [pool.facts.layers[name] for pool in pools.values()]
        wanted = " ".join(dict.fromkeys(state.wanted for state in states))
        rows.append((name, *(state.state for state in states), wanted, report.needs[name]))
    lines = _painted(table(rows), paint)
    every = [pair for pool in pools.values() for pair in pool.facts.layers.items()]
    missing: dict[str, LayerState] = {name: layer for name, layer in every if layer.state == "missing"}
    lines += [""] if missing else []
    lines += [paint(f"{name} is missing: {layer.detail}; remedy: {report.remedies.get(name, '')}", "plain")
              for name, layer in missing.items()]
    counts = [sum(layer.state == "enforced" for layer in pool.facts.layers.values()) for pool in pools.values()]
    return [*lines, "", f"{min(counts)} of {len(one)} layers can be enforced"]


def _pool(name: str, pool: Pool, table: Table, paint: Paint) -> list[str]:
    number = pool.exposure
    colour = "green" if number < 2 else "yellow" if number < 5 else "red"
    source = "measured on a started pool" if pool.facts.measured else "of the plan, as the pool does not start"
    accepted = f", of which {pool.accepted:.2f} accepted" if pool.accepted else ""
    lines = [f"{paint(f'pool {name}: exposure {number:.2f} of 10', colour)}{accepted}, {source}"]
    costing = [row for row in pool.rows if row.points]
    if costing:
        rows = [("LINE", "POINTS", "OF", "KEY", "EVIDENCE")]
        rows += [(row.name, f"{row.points:.2f}", f"{row.weight:.2f}", row.key, row.evidence) for row in costing]
        lines += table(rows).splitlines()
        told = {row.name: f"accepted: {row.name}: {pool.reasons.get(row.name)}" for row in costing}
        lines += [paint(told[row.name] if row.name in pool.reasons else f"lower {row.name}: {row.remedy}", "plain") for row in costing]
    return lines


def _checklist(found: Sequence[Finding], table: Table, paint: Paint) -> list[str]:
    rows = [("CHECKLIST", "BOX", "STATE", "EVIDENCE")]
    for group in GROUPS:
        for box in (box for box in found if box.group == group):
            state = f"{box.state}, accepted" if box.accepted else box.state
            rows += [(group, box.title, state, "; ".join(box.evidence))]
    lines = _painted(table(rows), paint)
    failing = [box for box in found if box.state == FAIL and not box.accepted]
    lines += ["", *(paint(f"{box.name}: {box.remedy}", "plain") for box in failing)]
    lines += [paint(f"{box.name} is accepted: {box.accepted}", "plain") for box in found if box.accepted]
    counts = {state: sum(box.state == state for box in found) for state in (PASS, FAIL, NOT_APPLICABLE)}
    return [*lines, ", ".join(f"{count} {state}" for state, count in counts.items())]


def _painted(table: str, paint: Paint) -> list[str]:
    """The lines of a table, its states coloured where they stand as a cell of their own; the columns keep their width."""
    head, *rest = table.splitlines()
    return [head, *(_CELL.sub(lambda cell: paint(cell[0], COLOURS[cell[0]]), line) for line in rest)]
