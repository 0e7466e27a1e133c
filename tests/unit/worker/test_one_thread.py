"""`threading`'s hook after a fork: left out only where the process is known to have one thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pyproc_worker

FORK = """
import os
from pyproc_worker import one_thread
import threading
marked = threading._active_limbo_lock
before()
alone = one_thread.is_alone()
one_thread.nothing_to_do = alone and use
child = os.fork()
if child == 0:
    made_anew = threading._active_limbo_lock is not marked
    worked = []
    thread = threading.Thread(target=worked.append, args=(1,))
    thread.start(); thread.join()
    good = worked == [1] and threading.active_count() == 1 and threading.current_thread() is threading.main_thread()
    print(alone, made_anew, good, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
KEPT = "kept = threading.Thread(target=print)"
RUNNING = "kept = threading.Event(); threading.Thread(target=kept.wait, daemon=True).start()"


@pytest.mark.parametrize(("before", "use", "alone", "made_anew"), [
    ("pass", True, True, False), ("pass", False, True, True), (KEPT, True, False, True), (RUNNING, True, False, True)])
def test_the_hook_is_left_out_only_for_a_process_alone(before: str, use: bool, alone: bool, made_anew: bool) -> None:
    folder = Path(pyproc_worker.__file__).parent.parent
    code = f"import sys; sys.path.append({str(folder)!r}); use = {use}\ndef before():\n    global kept; {before}\n{FORK}"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.split() == [str(alone), str(made_anew), "True"], run.stderr


def test_hooks_of_others_run() -> None:
    folder = Path(pyproc_worker.__file__).parent.parent
    code = (f"import sys, os; sys.path.append({str(folder)!r})\nfrom pyproc_worker import one_thread\n"
            "one_thread.nothing_to_do = True\n"
            "os.register_at_fork(before=lambda: print('before', flush=True), after_in_child=lambda: print('child', flush=True))\n"
            "child = os.fork()\n"
            "os._exit(0) if child == 0 else os.waitpid(child, 0)")
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.split() == ["before", "child"], run.stderr
