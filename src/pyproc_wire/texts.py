"""Texts that must fit: a failure's texts are cut, because nothing could be sent in the place of a failure.

Cut is at whole characters. A lone surrogate, which an exception's text may hold, has no UTF-8 form and is
written as an escape.
"""

from __future__ import annotations

import re
from typing import Final

from pyproc_wire.limits import PATH_CHARS

FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
"""A name stands behind `pool/` in a method, in grants with `*`, in labels and in audit records."""


def cut(text: str, limit: int) -> str:
    """The first `limit` bytes of `text` in UTF-8."""
    raw = text.encode("utf-8", "backslashreplace")
    return raw[:limit].decode("utf-8", "ignore") if len(raw) > limit else raw.decode()


def cut_front(text: str, limit: int) -> str:
    """The last `limit` bytes of `text` in UTF-8: the end of a traceback names the error."""
    return text.encode("utf-8", "backslashreplace")[-limit:].decode("utf-8", "ignore")


def cut_path(path: str | None) -> str | None:
    """The first 256 characters of a path."""
    if path is None:
        return None
    return path[:PATH_CHARS].encode("utf-8", "backslashreplace").decode()[:PATH_CHARS]
