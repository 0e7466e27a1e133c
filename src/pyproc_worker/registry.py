"""What a script exposes: names to functions, their checks and their JSON Schemas. Frozen before the first call.

Rules: an exact name or nothing, no dotted look-up; a signature is resolved once, here, and never per call; one parameter
(cancel_event aside) takes the whole body, several take the body's keys. What could fail at a call because of how the
function is written fails at exposure instead.

Values are converted after decoding, so that dates and arrays, which travel as extensions, can be annotated too.
"""

from __future__ import annotations

import datetime
import decimal
import inspect
import math
import os
import re
import time
import typing
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from pyproc_wire.errors import printable, step

CARRIED = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, bytes)
PLAIN, ASYNC, GENERATOR, ASYNC_GENERATOR = "plain", "async", "generator", "asyncgen"
CANCEL_EVENT = "cancel_event"
NAME_CHARS = 200  # a name stands in metrics, audit events and error texts
F = typing.TypeVar("F", bound=Callable[..., Any])


class BadBody(Exception):
    """The body does not fit the function: `.text`, `.path`; `.foreign` where a type of the script refused it."""

    def __init__(self, text: str, path: str, *, foreign: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.path = path
        self.foreign = foreign


class Function:
    """One exposed function: how its body becomes arguments, and what it promises."""

    __slots__ = ("_arguments", "_body", "_optional", "_whole", "direct", "fn", "idempotent", "kind", "name", "output",
                 "public_errors", "timeout", "wants_event", "whole_untyped")

    def __init__(self, fn: Callable[..., Any], name: str, *, timeout: float | None,
                 public_errors: tuple[type[BaseException], ...], idempotent: bool) -> None:
        self.fn = fn
        self.name = name
        self.timeout = timeout
        self.public_errors = public_errors
        self.idempotent = idempotent
        self.kind = _kind(fn)
        try:
            hints = typing.get_type_hints(fn, include_extras=True)
        except Exception as error:
            raise TypeError(f"function {name!r}: its annotations cannot be resolved: {error}") from error
        parameters = list(inspect.signature(fn).parameters.values())
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise TypeError(f"function {name!r} has {parameter}: *args, **kwargs and positional-only parameters "
                                "cannot be filled from a body; name each parameter")
        self.wants_event = any(p.name == CANCEL_EVENT for p in parameters)
        self.direct = self.kind is PLAIN and not self.wants_event
        parameters = [p for p in parameters if p.name != CANCEL_EVENT]
        self._whole = len(parameters) == 1 and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY
        self._optional = self._whole and parameters[0].default is not inspect.Parameter.empty
        self._arguments: type | None = None
        self._body: Any = None
        self.output = hints.get("return", Any)
        if self._whole:
            self._body = hints.get(parameters[0].name, Any)
        elif parameters:
            fields = [(p.name, hints.get(p.name, Any)) if p.default is p.empty
                      else (p.name, hints.get(p.name, Any), _default(p.default)) for p in parameters]
            self._arguments = msgspec.defstruct("body", fields, forbid_unknown_fields=True, kw_only=True)
        self.whole_untyped = self._whole and self._body is Any and not self._optional
        self._try_types()

    def _try_types(self) -> None:
        """Convert something now: msgspec says of a type that it cannot check only when it first meets it."""
        try:
            msgspec.convert(None, self._body if self._whole else self._arguments, builtin_types=CARRIED)
        except msgspec.ValidationError:
            pass  # the types are fine, None is not
        except Exception as error:
            raise TypeError(f"function {self.name!r}: its parameters cannot be checked: {error}") from error

    def bind(self, body: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) from a decoded body. Raises BadBody with the path of the offending value."""
        if self.whole_untyped:
            return (body,), {}
        if self._whole:
            if body is None and self._optional:
                return (), {}
            return (self._convert(body, self._body),), {}
        if self._arguments is None:
            if body is None or (type(body) is dict and not body):
                return (), {}
            raise BadBody(f"function {self.name!r} takes no body", "$")
        filled: Any = self._convert({} if body is None else body, self._arguments)
        return (), {name: getattr(filled, name) for name in filled.__struct_fields__}

    def _convert(self, body: Any, kind: Any) -> Any:
        try:
            return msgspec.convert(body, kind, builtin_types=CARRIED)
        except msgspec.ValidationError as error:
            cause = error.__cause__
            text, path = _explain(error, body, kind)
            if cause is None:
                raise BadBody(text, path) from error
            # Raised by `__post_init__` and the like: the text is the script's own, so it is shown by its rules only.
            if self.public_errors and isinstance(cause, self.public_errors):
                raise BadBody(printable(str(cause)), path) from cause
            raise BadBody("value is refused by its type", path, foreign=True) from cause

    def describe(self) -> dict[str, Any]:
        """JSON Schema of input and output, and what `expose` was told."""
        kind = self._body if self._whole else self._arguments
        return {"input": _schema(kind) if kind is not None else {"type": "null"}, "output": _schema(self.output),
                "stream": self.kind in (GENERATOR, ASYNC_GENERATOR), "timeout": self.timeout,
                "idempotent": self.idempotent}


class Registry:
    """Name to Function; `freeze` ends the adding."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._frozen = False
        self._born = time.monotonic()
        self.handled = 0
        self.lookup = self._functions.get
        self.add(self._health, name="health")

    def add(self, fn: Callable[..., Any], *, name: str | None = None, timeout: float | None = None,
            public_errors: tuple[type[BaseException], ...] = (), idempotent: bool = False) -> None:
        """Expose `fn`. Raises TypeError, ValueError naming the function and the remedy."""
        if not callable(fn) or inspect.isclass(fn):
            raise TypeError(f"{fn!r} cannot be exposed; expose a function")
        chosen = name if name is not None else getattr(fn, "__name__", None)
        if self._frozen:
            raise ValueError(f"function {chosen!r} is exposed after the script was loaded; expose it at import")
        if not isinstance(chosen, str) or not 0 < len(chosen) <= NAME_CHARS or "/" in chosen or not chosen.isprintable():
            raise ValueError(f"name {chosen!r} cannot be exposed; use 1 to {NAME_CHARS} printable characters without '/'")
        if chosen in self._functions and chosen != "health":
            raise ValueError(f"function {chosen!r} is exposed twice; give one of them another name")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)
                                    or not 0 < timeout < math.inf):
            raise ValueError(f"timeout of {chosen!r} is {timeout!r}; give seconds above 0")
        self._functions[chosen] = Function(fn, chosen, timeout=timeout, idempotent=idempotent,
                                           public_errors=_exceptions(chosen, public_errors))

    def freeze(self) -> None:
        """Nothing can be exposed from here on."""
        self._frozen = True

    def started(self) -> None:
        """A worker begins to serve: its own time and its own count, not the zygote's."""
        self._born = time.monotonic()
        self.handled = 0

    @property
    def has_async(self) -> bool:
        """Whether any function needs an event loop."""
        return any(function.kind in (ASYNC, ASYNC_GENERATOR) for function in self._functions.values())

    def describe(self) -> dict[str, dict[str, Any]]:
        """Name -> schemas and promises, in the order of exposure."""
        return {name: function.describe() for name, function in self._functions.items()}

    def _health(self) -> dict[str, Any]:
        return {"status": "healthy", "pid": os.getpid(), "uptime": time.monotonic() - self._born,
                "requests_handled": self.handled}


@typing.overload
def expose(fn: F) -> F: ...
@typing.overload
def expose(*, name: str | None = None, timeout: float | None = None,
           public_errors: tuple[type[BaseException], ...] = (), idempotent: bool = False) -> Callable[[F], F]: ...
def expose(fn: F | None = None, *, name: str | None = None, timeout: float | None = None,
           public_errors: tuple[type[BaseException], ...] = (), idempotent: bool = False) -> F | Callable[[F], F]:
    """Make a function callable from outside; with or without arguments, as a decorator (contract, section 2)."""

    def add(function: F) -> F:
        current.add(function, name=name, timeout=timeout, public_errors=public_errors, idempotent=idempotent)
        return function

    return add if fn is None else add(fn)


def _kind(fn: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(fn):
        kind = ASYNC_GENERATOR
    elif inspect.iscoroutinefunction(fn):
        kind = ASYNC
    else:
        return GENERATOR if inspect.isgeneratorfunction(fn) else PLAIN
    import asyncio  # noqa: F401 - loaded now, in the zygote, so that no worker pays for it at its first call

    return kind


def _exceptions(name: str, kinds: Any) -> tuple[type[BaseException], ...]:
    found = kinds if isinstance(kinds, tuple | list) else (kinds,)
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"public_errors of {name!r} holds {kind!r}; give exception classes")
    return tuple(found)


def _default(value: Any) -> Any:
    mutable = type(value) in (list, dict, set, bytearray)
    return msgspec.field(default_factory=lambda: type(value)(value)) if mutable else msgspec.field(default=value)


def _schema(kind: Any) -> dict[str, Any]:
    if kind is Any:
        return {}
    try:
        return msgspec.json.schema(kind)
    except Exception:  # noqa: BLE001 - a type that JSON Schema cannot express is described as "anything"
        return {}


_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_TOKEN = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])")


def _explain(error: msgspec.ValidationError, body: Any, kind: Any) -> tuple[str, str]:
    """msgspec's text, its first letter small, and the full path: it leaves out map keys and a missing or unknown key."""
    text, at, place = str(error).rpartition(" - at ")
    if not (at and place.endswith("`")):
        text, place = str(error), "`$`"
    place = place.rpartition("in ")[2].strip("`")  # "`key` in `$.a`": which key is not said
    path = place if "[...]" not in place else _spell_out(place, str(error), body, kind)
    field = _FIELD.fullmatch(text)
    if field is not None:
        return f"object {field[1]} field {printable(field[2])!r}", path + step(field[2])
    return text[:1].lower() + printable(text[1:]), path


def _spell_out(place: str, said: str, body: Any, kind: Any) -> str:
    """`place` with the key in each `[...]`: the first key with which the map is refused, found by halving."""
    path, above, value = "$", lambda inner: inner, body
    for name, index, unknown in _TOKEN.findall(place[1:]):
        key: Any = name or (int(index) if index else None)
        if unknown:
            if type(value) is not dict:
                return path
            key = _culprit(value, above, said, kind)
        try:
            inner = value[key]
        except (LookupError, TypeError):
            return path
        path += f"[{index}]" if index else step(key)
        above, value = _within(above, value, key), inner
    return path


def _within(above: Callable[[Any], Any], container: Any, key: Any) -> Callable[[Any], Any]:
    def rebuilt(inner: Any) -> Any:
        copy = dict(container) if isinstance(container, dict) else list(container)
        copy[key] = inner
        return above(copy)

    return rebuilt


def _culprit(entries: dict[Any, Any], above: Callable[[Any], Any], said: str, kind: Any) -> Any:
    keys = list(entries)
    low, high = 0, len(keys) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            msgspec.convert(above({key: entries[key] for key in keys[: middle + 1]}), kind, builtin_types=CARRIED)
            low = middle + 1
        except msgspec.ValidationError as error:
            low, high = (low, middle) if str(error) == said else (middle + 1, high)
    return keys[low]


current = Registry()
