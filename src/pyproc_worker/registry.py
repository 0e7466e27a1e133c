"""What a script exposes: names to functions, their checks and their JSON Schemas. Frozen before the first call.

Rules: an exact name or nothing, no dotted look-up; a signature is resolved once, here, and never per call; one parameter
(cancel_event aside) takes the whole body, several take the body's keys. Values are converted after decoding, so that
dates and arrays, which travel as extensions, can be annotated too.
"""

from __future__ import annotations

import datetime
import decimal
import inspect
import os
import time
import typing
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

CARRIED = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, bytes)
PLAIN, ASYNC, GENERATOR, ASYNC_GENERATOR = "plain", "async", "generator", "asyncgen"
CANCEL_EVENT = "cancel_event"
F = typing.TypeVar("F", bound=Callable[..., Any])


class BadBody(Exception):
    """The body does not fit the function: `.text`, `.path`."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text)
        self.text = text
        self.path = path


class Function:
    """One exposed function: how its body becomes arguments, and what it promises."""

    __slots__ = ("_arguments", "_body", "_whole", "fn", "idempotent", "kind", "name", "public_errors", "timeout",
                 "wants_event", "whole_untyped")

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
        parameters = [p for p in parameters if p.name != CANCEL_EVENT]
        self._whole = len(parameters) == 1 and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY
        self._arguments: type | None = None
        self._body: Any = None
        if self._whole:
            self._body = hints.get(parameters[0].name, Any)
        elif parameters:
            fields = [(p.name, hints.get(p.name, Any)) if p.default is p.empty
                      else (p.name, hints.get(p.name, Any), _default(p.default)) for p in parameters]
            self._arguments = msgspec.defstruct("body", fields, forbid_unknown_fields=True, kw_only=True)
        self.whole_untyped = self._whole and self._body is Any

    def bind(self, body: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) from a decoded body. Raises BadBody with the path of the offending value."""
        if self.whole_untyped:
            return (body,), {}
        try:
            if self._whole:
                return (msgspec.convert(body, self._body, builtin_types=CARRIED),), {}
            if self._arguments is None:
                if body not in (None, {}):
                    raise BadBody(f"function {self.name!r} takes no body", "$")
                return (), {}
            filled: Any = msgspec.convert({} if body is None else body, self._arguments, builtin_types=CARRIED)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at ")
            raise BadBody(text, path.strip("`") or "$") from error
        return (), {name: getattr(filled, name) for name in filled.__struct_fields__}

    def describe(self, output: Any) -> dict[str, Any]:
        """JSON Schema of input and output, and what `expose` was told."""
        kind = self._body if self._whole else self._arguments
        return {"input": _schema(kind) if kind is not None else {"type": "null"}, "output": _schema(output),
                "stream": self.kind in (GENERATOR, ASYNC_GENERATOR), "timeout": self.timeout,
                "idempotent": self.idempotent}


class Registry:
    """Name to Function; `freeze` ends the adding."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._outputs: dict[str, Any] = {}
        self._frozen = False
        self._born = time.monotonic()
        self.handled = 0
        self.lookup = self._functions.get
        self.add(self._health, name="health")

    def add(self, fn: Callable[..., Any], *, name: str | None = None, timeout: float | None = None,
            public_errors: tuple[type[BaseException], ...] = (), idempotent: bool = False) -> None:
        """Expose `fn`. Raises TypeError, ValueError naming the function and the remedy."""
        chosen = name if name is not None else fn.__name__
        if self._frozen:
            raise ValueError(f"function {chosen!r} is exposed after the script was loaded; expose it at import")
        if not isinstance(chosen, str) or not chosen or len(chosen) > 200 or "/" in chosen or not chosen.isprintable():
            raise ValueError(f"name {chosen!r} cannot be exposed; use 1 to 200 printable characters without '/'")
        if chosen in self._functions and chosen != "health":
            raise ValueError(f"function {chosen!r} is exposed twice; give one of them another name")
        if timeout is not None and (isinstance(timeout, bool) or not timeout > 0):
            raise ValueError(f"timeout of {chosen!r} is {timeout!r}; give seconds above 0")
        self._functions[chosen] = Function(fn, chosen, timeout=timeout, public_errors=tuple(public_errors),
                                           idempotent=idempotent)
        self._outputs[chosen] = typing.get_type_hints(fn).get("return", Any)

    def freeze(self) -> None:
        """Nothing can be exposed from here on."""
        self._frozen = True

    def describe(self) -> dict[str, dict[str, Any]]:
        """Name -> schemas and promises, in the order of exposure."""
        return {name: function.describe(self._outputs[name]) for name, function in self._functions.items()}

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
        return ASYNC_GENERATOR
    if inspect.iscoroutinefunction(fn):
        return ASYNC
    return GENERATOR if inspect.isgeneratorfunction(fn) else PLAIN


def _default(value: Any) -> Any:
    mutable = isinstance(value, (list, dict, set, bytearray))
    return msgspec.field(default_factory=lambda: type(value)(value)) if mutable else value


def _schema(kind: Any) -> dict[str, Any]:
    if kind is Any:
        return {}
    try:
        return msgspec.json.schema(kind)
    except TypeError:
        return {}


current = Registry()
