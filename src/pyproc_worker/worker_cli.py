"""`pyproc-worker FILE [--socket-path P] [--log-level L]`: a script's functions on a socket, without a sandbox.

Exit codes: 0 after SIGTERM, 66 where FILE cannot be read, 78 for a wrong setting. The script is loaded under a name of
its own and not as `__main__`, so that its own `run_worker()` does not begin to serve before the options are known.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import NoReturn

from pyproc_worker.standalone import CODECS, LOG_LEVELS, run_worker

NAME = "__pyproc_script__"
NO_INPUT, CONFIG = 66, 78


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM; ends the process by SystemExit."""
    parser = argparse.ArgumentParser(prog="pyproc-worker", description=(
        "Serves the functions that FILE exposes, on a unix socket and WITHOUT a sandbox; "
        "`pyproc call --worker FILE` runs them inside one."))
    parser.add_argument("file", metavar="FILE", help="the worker script")
    parser.add_argument("--socket-path", help="where to serve (default: PYPROC_SOCKET_PATH)")
    parser.add_argument("--codec-type", choices=CODECS, default="auto", help="what clients may speak")
    parser.add_argument("--log-level", choices=sorted(LOG_LEVELS), help="(default: PYPROC_LOG_LEVEL, or error)")
    options = parser.parse_args(argv)
    if options.log_level:
        os.environ["PYPROC_LOG_LEVEL"] = options.log_level
    path = os.path.abspath(options.file)
    if not os.path.isfile(path):
        _end(f"worker script {options.file!r} is not a file; give the path of a Python file", NO_INPUT)
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None:
        _end(f"worker script {options.file!r} is not Python; its name must end in .py", NO_INPUT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    try:
        run_worker(options.socket_path, options.codec_type)
    except (ValueError, OSError) as error:
        _end(str(error), CONFIG)


def _end(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"pyproc-worker: {text}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
