"""The command `pyproc-worker FILE [--socket-path P] [--log-level L]`: a stand-alone worker from the shell.

The script is run as `__main__`, as `python FILE` would. Its own `run_worker()` does not serve but notes what it was
asked for; then the socket of the command line, of the script or of the environment is served, in this order.
Exit status: 0 after SIGTERM, 2 for wrong usage, 78 for what cannot be read, exposed or served.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Sequence
from typing import Final

from pyproc_worker import standalone

EXIT_CONFIG: Final = 78
"""Contract section 4: refused to start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, or raises what the script itself raises while it loads."""
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
    standalone.SUPERVISED = True
    try:
        _load(os.path.abspath(options.file), source)
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
    return EXIT_CONFIG


def _load(path: str, source: bytes) -> None:
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv[:] = [path]
    sys.path.insert(0, os.path.dirname(path))
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the user's own script


if __name__ == "__main__":
    sys.exit(main())
