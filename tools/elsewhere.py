"""Runs the suite, and beside it what it does not show: linters, further interpreters, and an unprivileged uid.

    elsewhere.py beside pytest …          the suite: its output is shown as it comes
      |-- make lint                       shown as a whole when the suite has ended
      |-- elsewhere.py unprivileged       the tests with this mark; shown as a whole when the suite has ended
      `-- elsewhere.py pythons            the fast part on one interpreter after another; the same

Run by `make test` with the main environment's interpreter. Rules and reasons:
* At the same time, as a third of its time a test waits for processes. Beside the suite pytest needs no workers of its own:
  each of them would import every file once more, which is much of a short run.
* A part that fails ends no other one; the status is 0 only if each part's is.
* Prints which interpreters were found; one whose environment cannot be made is a printed line and not a failure, as it
  may lack a module that its distribution packs separately. The last line of each run is pytest's own.
* The parts are processes and not threads: what becomes an unprivileged uid is a child of a program with one thread. Each has
  a session of its own, so that an interrupt reaches it once, from here.
* The seed is one for all parts and stands in the first line.

`unprivileged` matters when make was started by root: a sandbox that only root can build would pass every other test.
The files are copied to a folder that the uid owns, as a checkout below a closed home cannot be reached by it; the
interpreter is the first one that this uid can execute, for the same reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pythons

TOP = Path(__file__).resolve().parent.parent
UID = 41234  # no account, so no group, no subordinate ids, no home: the least that a user can have
SECONDS = 900  # of one pytest: `make test` is meant to end in 300, and a machine may have other work
EXAMPLES = 20  # of each property, of which the main run draws 100: another interpreter differs in kinds of values, not in rare ones
ENDING_SECONDS = 20  # pytest takes its fixtures down after an interrupt; beyond that it is killed
# What depends on the interpreter: values, messages, what runs inside, system calls that its libraries make; with the newest
# one, the whole of a pool. Not its own system calls, which the main run compares for all of them; not the filter's compiler,
# the attacks' controls and the rules of the source, which are the same everywhere and take minutes.
FAST_PART = ("tests/unit/wire", "tests/unit/worker", "tests/property", "tests/vectors",
             "tests/unit/sandbox/test_workloads.py::test_library_works_under_the_worker_filter")
WITH_THE_NEWEST = tuple(f"tests/integration/test_{name}.py" for name in (
    "pool", "pool_misuse", "pool_interrupts", "pool_executor", "denied", "work_of_a_call"))
PARTS = {"lint": ("make", "--silent", "lint"), **{part: (sys.executable, __file__, part) for part in ("unprivileged", "pythons")}}
COPIED = ("tests", "examples", "docs", "src", "tools", "bench", "requirements")
PR_CAPBSET_DROP = 24
LAST_CAPABILITY = 63  # beyond the last one that a kernel knows prctl answers EINVAL, which is ignored


def drop() -> None:
    """Become the unprivileged uid for good: no groups, no capability, an empty bounding set."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.umask(0o022)


def environment_for(interpreter: pythons.Interpreter) -> Path | None:
    """An environment with what the suite needs and with our wheel; None, and a line, if it cannot be made."""
    directory = TOP / ".venvs" / interpreter.version
    command = [interpreter.path, str(TOP / "tools" / "environment.py"), str(directory), "suite", "--project"]
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        print(f"python {interpreter.version} ({interpreter.path}): left out, no environment (see above)", flush=True)
        return None
    return directory


def run_pytest(python: Path, options: list[str], *, directory: Path, unprivileged: bool) -> int:
    """Run pytest in its own session; end the whole of it at the limit."""
    variables = dict(os.environ, PYPROC_EXAMPLES=str(EXAMPLES))
    if unprivileged:
        variables = {key: variables[key] for key in ("PATH", "LANG", "TERM", "PYPROC_SEED") if key in variables}
        variables["HOME"] = str(directory)
    process = subprocess.Popen(
        [str(python), "-m", "pytest", *options], cwd=directory, env=variables, stdin=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=drop if unprivileged else None,
    )  # fmt: skip
    try:
        return process.wait(SECONDS)
    except BaseException as reason:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(reason, subprocess.TimeoutExpired):
            raise
        print(f"pytest was killed: no end after {SECONDS} s", file=sys.stderr, flush=True)
        return 1


def on_further_pythons(options: list[str]) -> int:
    """The fast part on one interpreter of each minor version that is not the main one, the newest one last."""
    further = pythons.one_a_minor(pythons.find(), but=sys.version_info[:2])
    print("further interpreters:", ", ".join(one.version for one in further) or "none found", flush=True)
    worst = 0
    for interpreter in further:
        directory = environment_for(interpreter)
        if directory is not None:
            print(f"python {interpreter.version}: the fast part", flush=True)
            paths = (*FAST_PART, *WITH_THE_NEWEST) if interpreter is further[-1] else FAST_PART
            fast = ["-q", "-m", "not slow", *options, *paths]
            worst |= run_pytest(directory / "bin" / "python", fast, directory=TOP, unprivileged=False)
    return worst


def can_execute(path: str) -> bool:
    """Whether the unprivileged uid can start this interpreter: asked by doing it."""
    try:
        done = subprocess.run([path, "-I", "-c", ""], cwd="/", env={}, preexec_fn=drop, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def marked_files() -> list[str]:
    """The files that name the mark, the only ones that are worth collecting."""
    return [str(path.relative_to(TOP)) for path in sorted(TOP.glob("tests/**/test_*.py")) if "mark.unprivileged" in path.read_text()]


def as_unprivileged(options: list[str]) -> int:
    """The tests marked `unprivileged`, by a uid without any right, on a copy that it owns."""
    if os.geteuid() != 0:
        print(f"unprivileged run: this is uid {os.geteuid()} already, the main run was it", flush=True)
        return 0
    able = [one for one in pythons.find() if can_execute(one.path)]
    if not able:
        print(f"unprivileged run: left out, uid {UID} can execute none of the interpreters found", flush=True)
        return 0
    chosen = environment_for(next((one for one in able if one.minor == sys.version_info[:2]), able[0]))
    if chosen is None:
        return 0
    box = Path(tempfile.mkdtemp(prefix="pyproc-"))
    try:
        for path in sorted(TOP.iterdir()):
            if path.is_file():
                shutil.copy2(path, box)
            elif path.name in COPIED:
                shutil.copytree(path, box / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(chosen, box / ".venv", symlinks=True)
        for folder, _, files in os.walk(box):
            os.lchown(folder, UID, UID)
            for name in files:
                os.lchown(os.path.join(folder, name), UID, UID)
        os.chmod(box, 0o755)  # noqa: S103  the sandbox's own users must reach the interpreter, as in any installation
        print(f"as uid {UID} without capabilities, python {chosen.name}: tests marked unprivileged", flush=True)
        marked = ["-q", "-m", "unprivileged", *options, *marked_files()]
        return run_pytest(box / ".venv" / "bin" / "python", marked, directory=box, unprivileged=True)
    finally:
        shutil.rmtree(box, ignore_errors=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Hand an interrupt on to a part, and kill its session if it does not end of it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def beside(suite: list[str]) -> int:
    """The suite and the parts at once; the suite's output as it comes, then each part's as a whole."""
    seed = os.environ.setdefault("PYPROC_SEED", str(secrets.randbelow(1 << 32)))
    print(f"the suite, and beside it what is shown below it: {', '.join(PARTS)}; seed: PYPROC_SEED={seed}", flush=True)
    running: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        texts = [stack.enter_context(tempfile.TemporaryFile()) for _ in PARTS]
        try:
            running.append(subprocess.Popen(suite, cwd=TOP, stdin=subprocess.DEVNULL, start_new_session=True))
            for command, text in zip(PARTS.values(), texts, strict=True):
                running.append(subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=text, stderr=subprocess.STDOUT,
                                                start_new_session=True))
            statuses = {"suite": running[0].wait()}
            for part, process, text in zip(PARTS, running[1:], texts, strict=True):
                statuses[part] = process.wait()
                text.seek(0)
                shutil.copyfileobj(text, sys.stdout.buffer)
                sys.stdout.flush()
            print(", ".join(f"{part}: {'FAILED, see above' if status else 'passed'}" for part, status in statuses.items()), flush=True)
            return max(map(abs, statuses.values()))
        finally:
            for process in running:
                end(process)


def main(arguments: list[str]) -> int:
    """`beside COMMAND…`, or a part with options for pytest."""
    kinds = {"beside": beside, "pythons": on_further_pythons, "unprivileged": as_unprivileged}
    return kinds[arguments[0]](arguments[1:])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
