"""`make demo`: classify real scans in a sandbox, then try to break out of it. Plain text where there is no terminal."""

from __future__ import annotations

import logging
import pathlib
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits

from pyproc import CallError, Limits, Pool

WORKERS = 2
SHADES = " ░▒▓█"
TOUR = [
    ("read /etc/passwd", "read_passwd"), ("open a socket", "open_socket"), ("start a program", "start_program"),
    ("loop for ever", "loop_for_ever"), ("eat memory", "eat_memory"), ("crash", "crash"),
    ("raise an exception with a secret", "raise_secret"),
]


def main() -> int:
    console = Console(width=80 if not sys.stdout.isatty() else None)
    causes: list[str] = []
    _collect(causes)
    digits = load_digits()
    half = len(digits.target) // 2
    scans, truth = digits.data[half:], digits.target[half:]
    console.print("[bold]pyproc[/]: a classifier is trained inside the sandbox, while its script is loaded …")
    begun = time.perf_counter()
    worker = pathlib.Path(__file__).with_name("digits_worker.py")
    with Pool(worker, workers=WORKERS, limits=Limits(memory="1 GiB"), timeout=20) as pool:
        console.print(f"  {WORKERS} workers serve after {time.perf_counter() - begun:.1f} s")
        guesses, times, wall = _classify(console, pool, [scan.tolist() for scan in scans])
        right = sum(int(guess == digit) for guess, digit in zip(guesses, truth, strict=True))
        times.sort()
        numbers = Table("what", "measured", title="The job", title_justify="left")
        numbers.add_row("scans classified", str(len(guesses)))
        numbers.add_row("accuracy", f"{right / len(guesses):.1%}")
        numbers.add_row("calls a second", f"{len(guesses) / wall:,.0f}")
        numbers.add_row("latency p50, p99", f"{statistics.median(times) * 1e6:,.0f} µs, {times[int(len(times) * .99)] * 1e6:,.0f} µs")
        layers = pool.status()["layers"]
        on = [name for name, layer in layers.items() if layer["state"] == "enforced"]
        numbers.add_row(f"layers in force ({len(on)} of {len(layers)})", ", ".join(on))
        console.print(numbers)
        answered = _tour(console, pool, causes)
    console.print(_picture(digits.images[half:], guesses, truth))
    console.print(f"[bold]{right} of {len(guesses)}[/] scans right, {len(TOUR)} attempts refused, "
                  f"{answered} of {len(TOUR)} calls after them answered.")
    return 0 if right / len(guesses) > 0.9 and answered == len(TOUR) else 1


def _classify(console: Console, pool: Pool, scans: list[list[float]]) -> tuple[list[int], list[float], float]:
    times: list[float] = []

    def one(scan: list[float]) -> int:
        begun = time.perf_counter()
        digit = pool.call("classify", scan)
        times.append(time.perf_counter() - begun)
        return int(digit)

    columns = (TextColumn("  classifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    guesses: list[int] = []
    begun = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as threads, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(scans))
        for guess in threads.map(one, scans):
            guesses.append(guess)
            progress.advance(task)
    return guesses, times, time.perf_counter() - begun


def _tour(console: Console, pool: Pool, causes: list[str]) -> int:
    table = Table("the worker tries to", "the caller gets", "why, from the log", title="A tour of refusals", title_justify="left")
    answered = 0
    blank = [0.0] * 64
    for title, method in TOUR:
        causes.clear()
        try:
            outcome = f"ESCAPED: {pool.call(method, timeout=3)!r}"[:60]
        except CallError as error:
            outcome = f"{type(error).__name__}" + (f" ({error.reason})" if error.reason else f" ({error.bound})" if error.bound else "")
            if method == "raise_secret":
                outcome += ": " + error.message
        pool.call("classify", blank)
        answered += 1
        table.add_row(title, outcome, causes[-1] if causes else "killed by the supervisor")
    console.print(table)
    return answered


def _collect(causes: list[str]) -> None:
    """Take the pool's log: the last line of each traceback is the cause."""

    class Last(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().strip().splitlines()[-1].strip()
            causes.append("(kept in the log only)" if "password" in text else text.split("reason=")[-1][:40])

    log = logging.getLogger("pyproc")
    log.addHandler(Last())
    log.propagate = False


def _picture(images: object, guesses: list[int], truth: object) -> Panel:
    rows: list[str] = []
    for start in (0, 8):
        block = range(start, start + 8)
        for y in range(8):
            rows.append("  ".join("".join(SHADES[min(4, int(images[i][y][x] / 3.3))] for x in range(8)) for i in block))  # type: ignore[index]
        rows.append("  ".join(f"{guesses[i]} {'=' if guesses[i] == truth[i] else '≠'} {truth[i]}".center(8) for i in block))  # type: ignore[index]
    return Panel("\n".join(rows), title="What it saw: its answer = the truth", expand=False)


if __name__ == "__main__":
    sys.exit(main())
