"""`make demo`: classify real scans in a sandbox, then try to break out of it, then show what the model saw.

Everything shown is measured or asked in this run; the exit status is 0 only if the model was right often enough, every
attempt was refused, and every call after an attempt was answered. Colours and the moving bar need a terminal; without
one, and on a dumb one, the same comes as plain text of 80 columns. NO_COLOR leaves the terminal and takes the colours.
"""

from __future__ import annotations

import logging
import os
import pathlib
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sklearn.datasets import load_digits

from pyproc import CallError, Limits, Pool

WORKERS = max(2, min(4, os.cpu_count() or 2))
ATTEMPT_SECONDS = 5.0  # what an attempt may take before its deadline: only the endless loop needs all of it
RIGHT_AT_LEAST = 0.9  # the share of right answers below which something other than handwriting is wrong
ATTEMPTS = (
    ("read /etc/passwd", "read_passwd"),
    ("open a socket", "open_socket"),
    ("start a program", "start_program"),
    ("loop for ever", "loop_for_ever"),
    ("eat memory", "eat_memory"),
    ("crash", "crash"),
    ("raise a secret", "raise_secret"),
)
SECRET = "the-password-in-the-worker"  # the bait: it must not come back
GREYS = 16  # the darkest grey value of a scan
SCANS_A_ROW, SCAN_COLUMNS = 4, 18  # at most, and what one takes of the screen


class Job(NamedTuple):
    """What came of classifying: the answers in order, the seconds of each call, the seconds of all."""

    answers: list[int]
    seconds: list[float]
    wall: float


def main() -> int:
    """Run the four parts; 0 if all came out as promised."""
    console = Console(width=None if sys.stdout.isatty() else 80, highlight=False)
    causes = collect_causes()
    digits = load_digits()
    half = len(digits.target) // 2
    scans, truth = digits.data[half:], [int(digit) for digit in digits.target[half:]]
    console.print("[bold]pyproc[/]: a classifier of handwritten digits, trained inside the sandbox")
    begun = time.perf_counter()
    script = pathlib.Path(__file__).with_name("digits_worker.py")
    with Pool(script, workers=WORKERS, limits=Limits(memory="512 MiB"), timeout=20.0) as pool:
        ready = time.perf_counter() - begun
        job = classify(console, pool, [scan.tolist() for scan in scans])
        right = sum(answer == digit for answer, digit in zip(job.answers, truth, strict=True))
        console.print(numbers(job, right, ready, pool.status()["layers"]))
        refused, answered = attempts(console, pool, causes, scans[0].tolist(), job.answers[0])
    console.print(picture(console, digits.images[half:], job.answers, truth))
    console.print(confusion(job.answers, truth))
    console.print(f"[bold]{right} of {len(truth)}[/] scans right; [bold]{refused} of {len(ATTEMPTS)}[/] attempts refused; "
                  f"[bold]{answered} of {len(ATTEMPTS)}[/] next calls answered.")
    kept = right / len(truth) >= RIGHT_AT_LEAST and refused == answered == len(ATTEMPTS)
    return 0 if kept else 1


def classify(console: Console, pool: Pool, scans: list[list[float]]) -> Job:
    """Ask for every scan, as many at once as there are workers."""
    seconds: list[float] = []

    def ask(scan: list[float]) -> int:
        begun = time.perf_counter()
        answer = pool.call("classify", scan)
        seconds.append(time.perf_counter() - begun)
        return int(answer)

    answers: list[int] = []
    columns = (TextColumn("classifying"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    begun = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as threads, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(scans))
        for answer in threads.map(ask, scans):
            answers.append(answer)
            progress.advance(task)
        wall = time.perf_counter() - begun
    return Job(answers, seconds, wall)


def numbers(job: Job, right: int, ready: float, layers: dict[str, Any]) -> Table:
    """The job in figures."""
    seconds = sorted(job.seconds)
    on = [name for name, layer in layers.items() if layer["state"] == "enforced"]
    table = Table(box=SIMPLE_HEAD, title="The job", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("workers", f"{WORKERS}, ready after {ready:.1f} s, model included")
    table.add_row("accuracy", f"{right / len(job.answers):.1%} of {len(job.answers)} scans that it was not trained on")
    table.add_row("calls a second", f"{len(job.answers) / job.wall:,.0f}, the model's own time included")
    table.add_row("latency", f"p50 {statistics.median(seconds) * 1e3:.2f} ms, "
                             f"p99 {seconds[int(len(seconds) * 0.99)] * 1e3:.2f} ms")
    table.add_row("layers in force", f"{len(on)} of {len(layers)}: {', '.join(on)}")
    return table


def attempts(console: Console, pool: Pool, causes: list[str], scan: list[float], known: int) -> tuple[int, int]:
    """Try each way out, and after each one an ordinary call; how many were refused, how many calls answered."""
    table = Table(box=SIMPLE_HEAD, title="A tour of refusals", title_justify="left")
    for heading in ("the worker tries to", "the caller gets", "the log says", "next call"):
        table.add_column(heading, overflow="fold")
    refused = answered = 0
    for title, method in ATTEMPTS:
        causes.clear()
        try:
            outcome = f"ESCAPED: {pool.call(method, timeout=ATTEMPT_SECONDS)!r}"
        except CallError as error:
            leaked = SECRET in f"{error} {error!r} {error.message} {error.__cause__} {error.__context__}"
            outcome = "LEAKED the secret" if leaked else type(error).__name__
            refused += not leaked
        try:
            fine = pool.call("classify", scan) == known
        except CallError as error:
            fine, outcome = False, f"{outcome}, then {type(error).__name__}"
        answered += fine
        table.add_row(title, outcome, causes[-1] if causes else "", "answered" if fine else "LOST")
    console.print(table)
    return refused, answered


def collect_causes() -> list[str]:
    """Take the pool's log: of each record what it says of the cause, in a few words; a secret stays unsaid."""
    causes: list[str] = []

    class Cause(logging.Handler):
        """Keeps the layer that refused, the reason of a death, or the last line of a traceback."""

        def emit(self, record: logging.LogRecord) -> None:
            """Called by the pool's threads."""
            text = record.getMessage().strip()
            denial = getattr(record, "denial", None)
            if denial is not None:
                if denial["reported_by"] != "kernel":  # of a death the reason was told before
                    causes.append(f"by {denial['layer']}")
            elif "reason=" in text:
                causes.append(text.partition("reason=")[2].partition(" ")[0])
            else:
                last = text.splitlines()[-1].strip()
                causes.append("the secret, here only" if SECRET in text else last.partition(":")[0][-22:])

    log = logging.getLogger("pyproc")
    log.addHandler(Cause())
    log.propagate = False
    return causes


def picture(console: Console, images: Any, answers: list[int], truth: list[int]) -> Text:
    """A few scans with the model's answer: a row that it read well, and a row of its mistakes."""
    colour, blocks = console.color_system is not None and not console.no_color, console.encoding.startswith("utf")
    many = max(1, min(SCANS_A_ROW, console.width // SCAN_COLUMNS))
    wrong = [index for index, answer in enumerate(answers) if answer != truth[index]]
    fine = [index for index, answer in enumerate(answers) if answer == truth[index]]
    out = Text("What it saw: the scan, its answer, the truth\n\n", style="italic" if colour else "")
    for chosen in (fine[:many], wrong[:many]):
        for line in range(8):
            for index in chosen:
                out.append("  ")
                for value in images[index][line]:
                    out.append_text(pixel(float(value), colour=colour, blocks=blocks))
            out.append("\n")
        for index in chosen:
            same = answers[index] == truth[index]
            verdict = f"{answers[index]}, right" if same else f"{answers[index]}, was {truth[index]}"
            out.append("  " + verdict.center(SCAN_COLUMNS - 2), style=("green" if same else "red") if colour else "")
        out.append("\n\n")
    return out


def pixel(value: float, *, colour: bool, blocks: bool) -> Text:
    """One grey value as two characters, which together are about a square."""
    if colour:
        grey = round(value / GREYS * 255)
        return Text("  ", style=f"on rgb({grey},{grey},{grey})")
    shades = " ░▒▓█" if blocks else " .+*#"
    return Text(shades[min(len(shades) - 1, round(value / GREYS * (len(shades) - 1)))] * 2)


def confusion(answers: list[int], truth: list[int]) -> Table:
    """How often each digit was read as which."""
    table = Table(box=SIMPLE_HEAD, title="Read as (columns), was (rows)", title_justify="left", collapse_padding=True)
    table.add_column("", justify="right", style="bold")
    for digit in range(10):
        table.add_column(str(digit), justify="right", no_wrap=True)
    pairs = list(zip(truth, answers, strict=True))
    for was in range(10):
        counts = [pairs.count((was, read)) for read in range(10)]
        cells = [f"[green]{n}[/]" if was == read else f"[red]{n}[/]" if n else "·" for read, n in enumerate(counts)]
        table.add_row(str(was), *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
