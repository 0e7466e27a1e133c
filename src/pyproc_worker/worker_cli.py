"""The command `pyproc-worker FILE [--socket-path P] [--log-level L]`: a stand-alone worker from the shell.

The script is run as `__main__`, as `python FILE` would. Its own `run_worker()` does not serve but notes what it was
asked for; then the socket of the command line, of the script or of the environment is served, in this order.
Exit status: 0 after SIGTERM, 2 for wrong usage, 78 for what cannot be read, exposed or served.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Final

from pyproc_worker import standalone

EXIT_FAILED: Final = 1
"""The script raised."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. `sys.exit` of the script is the script's."""
    parser = argparse.ArgumentParser("pyproc-worker", description="Serve the functions that a script exposes.")
    parser.add_argument("file", metavar="FILE", help="the script")
    parser.add_argument("--socket-path", metavar="P", help="socket to serve on (default: $PYPROC_SOCKET_PATH)")
    parser.add_argument("--log-level", metavar="L", choices=standalone.LEVELS, help=", ".join(standalone.LEVELS))
    options = parser.parse_args(arguments)
    if options.log_level:
        os.environ["PYPROC_LOG_LEVEL"] = options.log_level
    try:
        with open(options.file, "rb") as file:
            source = file.read()
    except OSError as error:
        return _refused(f"script {options.file!r} cannot be read: {error.strerror}")
    path = os.path.abspath(options.file)
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # a NUL in it
        return _refused(f"script {options.file!r} is not Python: {error}")
    standalone.SUPERVISED = True
    try:
        _load(path, code)
    except Exception as error:  # noqa: BLE001 - the script's, told without the frames of this file
        traceback.print_exception(error.with_traceback(_of_the_script(error, path)))
        return EXIT_FAILED
    finally:
        standalone.SUPERVISED = False
    socket_path, codec_type = standalone.asked
    try:
        standalone.serve(options.socket_path or socket_path, codec_type)
    except (ValueError, TypeError, OSError) as error:
        return _refused(str(error))
    return 0


def _refused(text: str) -> int:
    sys.stderr.write(f"pyproc-worker: {text}\n")
    return standalone.EXIT_CONFIG


def _load(path: str, code: types.CodeType) -> None:
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv[:] = [path]
    sys.path.insert(0, os.path.dirname(path))
    exec(code, module.__dict__)  # noqa: S102 - the user's own script


def _of_the_script(error: BaseException, path: str) -> types.TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    sys.exit(main())
