"""What the text of a worker script says without being run: its digest, what it imports, which error texts it makes public. Pure.

The text may be hostile: it is parsed and never compiled, and a text that the parser refuses is a finding and no failure.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

OURS = frozenset({"pyproc_worker", "__future__"})
BROAD = frozenset({"Exception", "BaseException"})  # as public_errors they publish the text of every mistake


class Script(NamedTuple):
    """`imports`: top-level names that are not the standard library's; `public`: lines that publish a text of their own;
    `broad`: lines that publish the text of any exception; `unread`: why it could not be parsed, or ""."""

    digest: str
    imports: frozenset[str]
    public: tuple[int, ...]
    broad: tuple[int, ...]
    unread: str


def read(source: str) -> Script:
    """What the text of a script says."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Script(digest, frozenset(), (), (), f"{type(error).__name__}: {error}")
    imports = {name for node in nodes for name in _imported(node)} - OURS - sys.stdlib_module_names
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    public = tuple(call.lineno for call in calls if _name(call.func) == "PublicError")
    broad = tuple(call.lineno for call in calls if any(
        word.arg == "public_errors" and BROAD & {_name(part) for part in ast.walk(word.value)} for word in call.keywords))
    return Script(digest, frozenset(imports), public, broad, "")


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0]


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
