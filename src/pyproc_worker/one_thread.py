"""`threading` without its work after a fork, where there is none: imported before anything else imports `threading`.

`threading` makes its locks and its list of threads anew in each forked child. In a process that has one thread, the main one,
there is nothing to make anew, and the attempt writes to a hundred pages that the child has to copy first: a tenth of a
worker's start. So its hook is registered behind a switch. Until the zygote, which knows that it has one thread and will
start none, turns `nothing_to_do` on, the hook runs as ever; so it does where this interpreter's `threading` looks different.
Hooks of anybody else are not touched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

nothing_to_do = False
_deferred: list[Callable[[], object]] = []


def _after_in_child() -> None:
    if not nothing_to_do:
        for hook in _deferred:
            hook()


def is_alone() -> bool:
    """True if the main thread is the only one that `threading` remembers, running, starting or ended."""
    known = vars(threading)
    return all(len(known.get(name, "?!")) == count for name, count in (("_active", 1), ("_dangling", 1), ("_limbo", 0)))


def _register(**hooks: Any) -> None:
    after = hooks.pop("after_in_child", None)
    if after is not None:
        _deferred.append(after)
        os_register(after_in_child=_after_in_child)
    if hooks:
        os_register(**hooks)


os_register = os.register_at_fork
if "threading" not in sys.modules:
    os.register_at_fork = _register
try:
    import threading
finally:
    os.register_at_fork = os_register
