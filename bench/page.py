"""Puts the figures of the result files into docs/explanation/performance.md, and says whether they stand there already.

    python bench/page.py [--check]      --check: write nothing, end with 1 when the page and the results differ

In the page `<!-- NAME WORD… -->` stands before each table and `<!-- end -->` after it; what is between is written here, and no other
place of the page has a figure. The names are those of `TABLES`, else of a workload, whose words are placements.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import tables

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs" / "explanation" / "performance.md"
RESULTS = TOP / "bench" / "results"
DAY = "2026-11-24"
BLOCK = re.compile(r"<!-- ([^>]+) -->\n.*?<!-- end -->\n", re.DOTALL)


def result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{DAY}{name}.json").read_text("utf-8"))


def sandbox() -> list[list[str]]:
    """The sandbox's share of a call, of a start and of memory."""
    found, table = result("-sandbox-share"), [["", "median", "lowest", "highest"]]
    titles = {"strict_us": "a call in strict, us", "off_us": "a call with the layers off, us", "ratio": "strict / off",
              "p50_ms": "a worker's start, numpy loaded, p50, ms", "p99_ms": "the same, p99, ms",
              "worker_private_kib": "a worker's own KiB", "worker_pss_kib": "a worker's share, KiB",
              "zygote_private_kib": "the zygote's own KiB", "zygote_pss_kib": "the zygote's share, KiB"}
    for what in ("calls", "starts", "memory"):
        for placement, metrics in found[what].items():
            table += [[f"{titles[metric]}, {placement}", *(tables.number(one[end]) for end in ("median", "lowest", "highest"))]
                      for metric, one in metrics.items()]
    return table


TABLES = {
    "ratios": lambda: tables.ratios(result(""), "pyproc"),
    "split": lambda: tables.parts(result("-split")["us"], "us"),
    "sandbox": sandbox,
}


def rendered(page: str) -> str:
    """The page with its tables."""
    def table(block: re.Match[str]) -> str:
        name, *words = block[1].split(", ")
        if name == "machine":
            text = tables.machine(result("")) + "."
        else:
            text = tables.markdown(TABLES[name]() if name in TABLES else tables.rows(result(""), name, *words))
        return f"<!-- {block[1]} -->\n{text}\n<!-- end -->\n"
    return BLOCK.sub(table, page)


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    if "--check" in sys.argv[1:]:
        raise SystemExit(int(rendered(text) != text))
    PAGE.write_text(rendered(text), "utf-8")
