"""A result as tables: for people at a terminal and, from the same rows, as Markdown for the documentation. Numbers in, text out."""

from __future__ import annotations

from typing import Any

TITLES = {
    "latency": "One call at a time",
    "fresh": "One call at a time, each in a process that served none",
    "threads 1": "Calls a second by threads, 1 worker", "threads 2": "Calls a second by threads, 2 workers",
    "submit 1": "Calls a second by submitted calls in flight, 1 worker",
    "submit 2": "Calls a second by submitted calls in flight, 2 workers",
    "tasks 1": "Calls a second by asyncio tasks, 1 worker", "tasks 2": "Calls a second by asyncio tasks, 2 workers",
    "map 1": "Bulk calls a second by calls that travel together, 1 worker",
    "map 2": "Bulk calls a second by calls that travel together, 2 workers",
    "bytes": "N bytes there and N back, p50", "arrays": "An array of N bytes there and back, p50",
    "start": "From making a pool to its first answer", "memory": "Memory after 500 calls, 2 workers",
}
COLUMNS = {  # workload -> (metric, heading) where the points are rows of one metric each, else the metric of the points
    "latency": (("p50_us", "p50 us"), ("p99_us", "p99 us"), ("calls_s", "calls/s")),
    "fresh": (("p50_us", "p50 us"), ("p99_us", "p99 us")),
    "start": (("ms", "ms"),),
    "memory": (("private_kib", "a worker's own KiB"), ("pss_kib", "a worker's share, KiB"),
               ("all_private_kib", "own KiB of all processes")),
}
PAYLOAD = ("bytes", "arrays")


def rows(result: dict[str, Any], workload: str, *only: str, range_of: bool = True) -> list[list[str]]:
    """Heading and a row for each peer; "12.3 (11.9-14.0)" is the median of the rounds with the lowest and the highest. `only`:
    placements, else all."""
    placements = {name: found for name, found in result["results"][workload].items() if name in (only or (name,))}
    columns = COLUMNS.get(workload)
    points = points_of(placements)
    heads = [(placement, point, metric, title) for placement in placements
             for point in points for metric, title in (columns or ((_metric(workload), point),))]
    table = [["", *(f"{placement}: {title}" for placement, _, _, title in heads)]]
    peers = list(next(iter(placements.values())))
    for peer in peers:
        notes = {placement: placements[placement][peer].get("note") for placement in placements}
        if all(note == "-" for note in notes.values()):
            continue
        table.append([peer, *(_cell(placements[placement][peer], point, metric, range_of=range_of and bool(columns))
                              for placement, point, metric, _ in heads)])
    return table


COMPARED = (  # workload, placement, point, metric, heading, whether more is better
    ("latency", "pinned", "", "p50_us", "a call, pinned", False),
    ("latency", "free", "", "p50_us", "a call, free", False),
    ("submit 2", "free", "64", "calls_s", "64 in flight", True),
    ("map 2", "free", "default", "calls_s", "bulk", True),
    ("arrays", "free", "1 MiB", "p50_us", "1 MiB array", False),
    ("arrays", "free", "100 MiB", "p50_us", "100 MiB array", False),
    ("start", "free", "", "ms", "start", False),
    ("fresh", "free", "", "p50_us", "fresh process", False),
    ("memory", "free", "", "private_kib", "own memory", False),
)


def ratios(result: dict[str, Any], ours: str) -> list[list[str]]:
    """How many times better `ours` is than each peer; below 1 the peer is better."""
    compared = [one for one in COMPARED if one[0] in result["results"]]
    table = [["", *(heading for *_, heading, _ in compared)]]
    peers = [peer for peer in next(iter(result["results"].values()))["free"] if not peer.startswith(ours)]
    for peer in peers:
        row = [peer]
        for workload, placement, point, metric, _, more in compared:
            both = [result["results"][workload][placement][name] for name in (peer, ours)]
            values = [one.get("points", {}).get(point, {}).get(metric, {}).get("median") for one in both]
            if None in values:
                row.append(_cell(both[0], point, metric, range_of=False) if "note" in both[0] else "-")
            else:
                theirs, mine = values
                row.append(number(mine / theirs if more else theirs / mine))
        table.append(row)
    return table


def parts(found: dict[str, dict[str, float]], unit: str) -> list[list[str]]:
    """Name, median, lowest and highest of a summary."""
    return [["", f"median, {unit}", "lowest", "highest"],
            *([name, *(number(one[end]) for end in ("median", "lowest", "highest"))] for name, one in found.items())]


def points_of(placements: dict[str, Any]) -> list[str]:
    """The points that any peer has, in their order."""
    found: dict[str, None] = {}
    for peers in placements.values():
        for peer in peers.values():
            found |= dict.fromkeys(peer.get("points", {}))
    return list(found)


def _metric(workload: str) -> str:
    return "p50_us" if workload in PAYLOAD else "calls_s"


def _cell(peer: dict[str, Any], point: str, metric: str, *, range_of: bool) -> str:
    if "note" in peer:
        return peer["note"].partition(":")[0]
    found = peer["points"].get(point, {}).get(metric)
    if found is None:
        return "-"
    ends = f" ({number(found['lowest'])}-{number(found['highest'])})" if range_of and found["lowest"] != found["highest"] else ""
    return number(found["median"]) + ends


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def aligned(table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
                     for row in table)


def markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|---" + "|---:" * (len(table[0]) - 1) + "|", *lines[1:]])


def machine(result: dict[str, Any]) -> str:
    """One line of what a reader must know."""
    found = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (f"{result['date']}: {found['processor']}, {found['cores']} cores, Linux {found['kernel']}, {found['python']}, "
            f"{'root' if found['root'] else 'not root'}; {versions}; profile {found['profile']}; load before {found['load_before']}"
            + "".join(f", {load} in a run of its own for {', '.join(names)}" for names, load in result.get("runs_apart", []))
            + f"; {result['rounds']} rounds of {result['round_seconds']} s")


def text(result: dict[str, Any]) -> str:
    """All of it, for a terminal."""
    parts = [machine(result)]
    parts += [f"{TITLES[name]}\n{aligned(rows(result, name))}" for name in result["results"]]
    return "\n\n".join(parts)
