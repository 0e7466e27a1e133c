"""A result as pictures for the documentation: SVG by matplotlib, the same bytes for the same result.

Colours stay with their peer in every picture; bars carry their lowest and highest round. Only what was measured is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import tables
from peers import PEERS
from workloads import SIZES

HUES = ("#0b5fa5", "#55a0dd", "#444444", "#d1700f", "#a8322d", "#7a4fa3", "#3d8a46", "#c2398f", "#8c6d1f")
COLOURS = dict(zip(PEERS, HUES, strict=True))
BARS = {  # workload: its metric, and what it is
    "latency": ("p50_us", "p50 of a call, us"),
    "fresh": ("p50_us", "p50 of a call in a fresh process, us"),
    "start": ("ms", "pool to first answer, ms"),
    "memory": ("pss_kib", "a worker's share of memory, KiB"),
    "map 2": ("calls_s", "bulk calls/s, 2 workers"),
}
NO_DATE = {"Date": None}
matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.hashsalt": "pyproc", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True, "figure.facecolor": "white", "legend.frameon": False,
})


def draw(result: dict[str, Any], folder: Path) -> None:
    """Every picture that the result has the numbers for."""
    folder.mkdir(parents=True, exist_ok=True)
    found = result["results"]
    for workload, (metric, label) in BARS.items():
        if workload in found:
            save(bars(found[workload], metric, label), folder / f"{workload.split()[0]}.svg")
    rates = [name for name in ("threads 2", "submit 2", "tasks 2") if name in found]
    if rates:
        save(lines(found, rates, "calls_s", "calls/s, free", "in flight, 2 workers"), folder / "rate.svg")
    payloads = [name for name in tables.PAYLOAD if name in found]
    if payloads:
        save(lines(found, payloads, "p50_us", "p50 there and back, us, free", "size"), folder / "payload.svg")


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="svg", metadata=NO_DATE, bbox_inches="tight")
    plt.close(figure)


def bars(placements: dict[str, Any], metric: str, label: str) -> Any:
    """A bar for each peer, one picture for each placement, on a scale of powers of ten."""
    figure, axes = plt.subplots(1, len(placements), figsize=(4.8 * len(placements), 2.9), sharey=True, squeeze=False)
    for axis, (placement, peers) in zip(axes[0], placements.items(), strict=True):
        shown = [(name, next(iter(peer["points"].values()))[metric]) for name, peer in peers.items() if peer.get("points")]
        for place, (name, value) in enumerate(reversed(shown)):
            middle = value["median"]
            axis.barh(place, middle, color=COLOURS[name], xerr=[[middle - value["lowest"]], [value["highest"] - middle]],
                      error_kw={"ecolor": "#222222", "capsize": 2})
            axis.annotate(f" {tables.number(middle)}", (max(value["highest"], middle), place), va="center", fontsize=9)
        axis.set_yticks(range(len(shown)), [name for name, _ in reversed(shown)])
        axis.set_xscale("log")
        axis.margins(x=0.25)
        axis.set_xlabel(label)
        axis.set_title(placement, loc="left")
        axis.grid(visible=False, axis="y")
    return figure


def lines(found: dict[str, Any], workloads: list[str], metric: str, label: str, along: str) -> Any:
    """A line for each peer along the points, one picture for each workload, both scales of powers."""
    figure, axes = plt.subplots(1, len(workloads), figsize=(4.8 * len(workloads), 3.6), sharey=True, squeeze=False)
    for axis, workload in zip(axes[0], workloads, strict=True):
        points = tables.points_of(found[workload])
        places = [SIZES.get(point) or int(point) for point in points]
        for name, peer in found[workload]["free"].items():
            there = [(place, peer["points"][point][metric]) for place, point in zip(places, points, strict=True)
                     if point in peer.get("points", {})]
            if there:
                x, y = [place for place, _ in there], [value["median"] for _, value in there]
                axis.plot(x, y, "o-", color=COLOURS[name], label=name, markersize=4)
                axis.fill_between(x, [value["lowest"] for _, value in there], [value["highest"] for _, value in there],
                                  color=COLOURS[name], alpha=0.15, linewidth=0)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(places, points, rotation=30)
        axis.minorticks_off()
        axis.set_xlabel(along)
        axis.set_title(workload.split()[0], loc="left")
    axes[0][0].set_ylabel(label)
    handles = {text: handle for axis in axes[0] for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(0.92, 0.5))
    return figure
