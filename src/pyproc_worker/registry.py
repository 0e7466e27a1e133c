"""What a script exposes: names to functions, resolved once. Frozen before the first call.

Rules. An exact name or nothing, no dotted look-up, no default function. One parameter (`cancel_event` aside) takes the
whole body; several, or keyword-only ones, take its keys. `*args`, `**kwargs` and positional-only parameters are
refused, because no body could say what they get. Whatever is wrong with a function is said when it is exposed, by the
line that exposes it; only an annotation that names something defined further down waits for `freeze`.

`inspect` and `typing` are used here and nowhere else in a worker: a call never looks at a signature.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
import typing
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Final, TypeVar, overload

from pyproc_wire.texts import FUNCTION_NAME
from pyproc_worker import schema

PLAIN: Final = "plain"
ASYNC: Final = "async"
GENERATOR: Final = "generator"
ASYNC_GENERATOR: Final = "asyncgen"

CANCEL_EVENT: Final = "cancel_event"
HEALTH: Final = "health"

_UNFILLABLE: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY)

F = TypeVar("F", bound=Callable[..., Any])


class Function:
    """One exposed function. A call is `run(check(body))`; where `check` is None the body itself is run.

    The two steps are apart because a refused body is the caller's mistake and whatever comes later the function's. `run`
    of a function with `wants_event` takes the keyword `cancel_event`. `kind` is plain, async, generator or asyncgen.
    Before `resolve` has succeeded, `check` refuses every body.
    """

    __slots__ = (
        "fn",
        "name",
        "timeout",
        "public_errors",
        "idempotent",
        "kind",
        "wants_event",
        "resolved",
        "check",
        "run",
        "_by_name",
        "_in_order",
        "_parameters",
        "_input",
        "_output",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        *,
        timeout: float | None = None,
        public_errors: tuple[type[BaseException], ...] = (),
        idempotent: bool = False,
    ) -> None:
        self.fn = fn
        self.name = name
        self.timeout = timeout
        self.public_errors = public_errors
        self.idempotent = idempotent
        self.kind = _kind(fn)
        self.resolved = False
        parameters = _parameters(fn, name)
        self.wants_event = CANCEL_EVENT in parameters
        parameters.pop(CANCEL_EVENT, None)
        self._parameters = list(parameters.values())
        self._by_name = self._in_order = False
        self.check: schema.Check | None = _unresolved
        self.run: Callable[..., Any] = fn

    @property
    def takes_whole(self) -> bool:
        """Whether the one parameter takes the whole body."""
        parameters = self._parameters
        return len(parameters) == 1 and parameters[0].kind is Parameter.POSITIONAL_OR_KEYWORD

    def resolve(self) -> None:
        """Read the annotations and compile check and schema. Raises NameError for a name that is not there (yet),
        TypeError for an annotation that no body can fulfil."""
        hints = typing.get_type_hints(_annotated(self.fn), include_extras=True)
        try:
            if self.takes_whole:
                self._take_whole(self._parameters[0], hints)
            else:
                self._take_keys(hints)
        except TypeError as error:
            raise TypeError(f"function {self.name!r} cannot be exposed: {error}") from error
        self._output = schema.output_schema(hints.get("return", Any), streams=self.kind in (GENERATOR, ASYNC_GENERATOR))
        self.resolved = True

    def _take_whole(self, parameter: Parameter, hints: dict[str, Any]) -> None:
        kind, fn = hints.get(parameter.name, Any), self.fn
        self._input = schema.input_schema(kind)
        check = schema.whole_check(kind)
        optional = parameter.default is not Parameter.empty
        if not optional and not self.wants_event:
            self.check, self.run = check, fn
            return

        def bind(body: Any) -> dict[str, Any]:
            if body is None and optional:
                return {}  # a missing body leaves the default
            return {parameter.name: body if check is None else check(body)}

        self._by_name = True
        self.check, self.run = bind, _by_name(fn)

    def _take_keys(self, hints: dict[str, Any]) -> None:
        parameters, fn = self._parameters, self.fn
        check, struct = schema.keys_check(self.name, parameters, hints)
        self._input = schema.input_schema(struct)
        in_order = all(parameter.kind is Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
        if in_order and not self.wants_event:  # `cancel_event` may stand anywhere, so that the others go by name
            self._in_order = True
            self.check, self.run = check, lambda values: fn(*values)
            return
        names = [parameter.name for parameter in parameters]
        self._by_name = True
        self.check = lambda body: dict(zip(names, check(body), strict=True))
        self.run = _by_name(fn)

    def bind(self, body: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that a body becomes, positional and by keyword. Raises InvalidBody."""
        filled = body if self.check is None else self.check(body)
        if self._by_name:
            return (), filled
        return (filled if self._in_order else (filled,)), {}

    def describe(self) -> dict[str, Any]:
        """What a supervisor is told: schemas of input and output (of one part, for a stream) and the options."""
        return {
            "input": self._input,
            "output": self._output,
            "stream": self.kind in (GENERATOR, ASYNC_GENERATOR),
            "timeout": self.timeout,
            "idempotent": self.idempotent,
        }


def _unresolved(body: Any) -> Any:
    raise RuntimeError("annotations are not resolved yet; freeze the registry before the first call")


def _by_name(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda arguments, **event: fn(**arguments, **event)


def _kind(fn: Callable[..., Any]) -> str:
    target = _callee(fn)
    if inspect.isasyncgenfunction(target):
        return ASYNC_GENERATOR
    if inspect.iscoroutinefunction(target):
        return ASYNC
    return GENERATOR if inspect.isgeneratorfunction(target) else PLAIN


def _callee(fn: Callable[..., Any]) -> Any:
    """What runs: through partials, and `__call__` of an object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) else type(fn).__call__


def _annotated(fn: Callable[..., Any]) -> Any:
    """Where the annotations of the signature stand: `inspect.signature` looks through wrappers too."""
    return inspect.unwrap(_callee(inspect.unwrap(fn)))


def _parameters(fn: Callable[..., Any], name: str) -> dict[str, Parameter]:
    try:
        parameters = dict(inspect.signature(fn).parameters)
    except (TypeError, ValueError) as error:
        raise TypeError(f"function {name!r} cannot be exposed: it has no signature; wrap it in a def") from error
    for parameter in parameters.values():
        if parameter.kind in _UNFILLABLE:
            raise TypeError(
                f"function {name!r} cannot be exposed: parameter {str(parameter)!r} is {parameter.kind.description} "
                "and no body can fill it; name each parameter"
            )
    return parameters


class Registry:
    """Name -> Function. `add` until `freeze`, `lookup` after it.

    `handled` and `born` are what `health` tells: calls answered, and the time.monotonic() of this worker's start.
    """

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._frozen = False
        self.handled = 0
        self.born = time.monotonic()
        self.lookup: Callable[[str], Function | None] = self._functions.get
        """The function of exactly this name, or None."""
        health = Function(self._health, HEALTH, idempotent=True)
        health.resolve()
        self._functions[HEALTH] = health

    def add(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: float | None = None,
        public_errors: tuple[type[BaseException], ...] = (),
        idempotent: bool = False,
    ) -> Function:
        """Expose `fn`. Raises TypeError or ValueError that names the function, the reason and the remedy."""
        if not callable(fn) or isinstance(fn, type):
            raise TypeError(f"{fn!r} cannot be exposed: expose takes a function")
        name = self._checked_name(getattr(fn, "__name__", None) if name is None else name)
        _check_timeout(name, timeout)
        errors = _error_types(name, public_errors)
        function = Function(fn, name, timeout=timeout, public_errors=errors, idempotent=idempotent)
        try:
            function.resolve()
        except NameError:
            pass  # may name a class that the script defines further down: freeze tries again
        self._functions[name] = function
        return function

    def _checked_name(self, name: Any) -> str:
        if not isinstance(name, str) or FUNCTION_NAME.fullmatch(name) is None:
            raise ValueError(f"name {name!r} cannot be exposed; give name= 1 to 128 of A-Z a-z 0-9 _ . : -")
        if self._frozen:
            raise ValueError(f"function {name!r} is exposed after the script was loaded; expose it at import")
        if name == HEALTH:
            raise ValueError("function 'health' cannot be exposed: every worker has one; give another name=")
        if name in self._functions:
            raise ValueError(f"function {name!r} is exposed twice; give one of them another name=")
        return name

    def freeze(self) -> None:
        """Nothing can be added from here on. Raises TypeError for annotations that name what does not exist."""
        for function in self._functions.values():
            if not function.resolved:
                try:
                    function.resolve()
                except NameError as error:
                    raise TypeError(
                        f"function {function.name!r} cannot be exposed: an annotation names {error.name!r}, which is "
                        "not defined at module level"
                    ) from error
        if any(function.kind in (ASYNC, ASYNC_GENERATOR) for function in self._functions.values()):
            import asyncio  # noqa: F401 - once before the fork instead of once in each worker
        self._frozen = True

    def answer_unlisted(self, function: Function) -> None:
        """After `freeze`: answer to `function` too, which has a name that cannot be exposed and is announced nowhere."""
        self.lookup = {**self._functions, function.name: function}.get

    def describe(self) -> dict[str, dict[str, Any]]:
        """Name -> {input, output, stream, timeout, idempotent}, in the order of exposure."""
        return {name: function.describe() for name, function in self._functions.items()}

    def _health(self) -> dict[str, Any]:
        return {
            "status": "healthy",
            "pid": os.getpid(),
            "uptime": time.monotonic() - self.born,
            "requests_handled": self.handled,
        }


def _check_timeout(name: str, timeout: Any) -> None:
    if timeout is None:
        return
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < float("inf"):
        raise ValueError(f"timeout of {name!r} is {timeout!r}; give seconds above 0")


def _error_types(name: str, errors: Any) -> tuple[type[BaseException], ...]:
    types = tuple(errors) if isinstance(errors, tuple | list) else (errors,)
    for kind in types:
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise TypeError(f"public_errors of {name!r} holds {kind!r}; give exception classes")
    return types


current: Final = Registry()
"""What `expose` fills: one script, one registry."""


@overload
def expose(fn: F, /) -> F: ...
@overload
def expose(
    fn: None = None,
    *,
    name: str | None = None,
    timeout: float | None = None,
    public_errors: tuple[type[BaseException], ...] = (),
    idempotent: bool = False,
) -> Callable[[F], F]: ...
@overload
def expose(
    fn: F,
    *,
    name: str | None = None,
    timeout: float | None = None,
    public_errors: tuple[type[BaseException], ...] = (),
    idempotent: bool = False,
) -> F: ...
def expose(
    fn: F | None = None,
    *,
    name: str | None = None,
    timeout: float | None = None,
    public_errors: tuple[type[BaseException], ...] = (),
    idempotent: bool = False,
) -> F | Callable[[F], F]:
    """Make a function callable from outside: `@expose`, `@expose(timeout=2)` or `expose(fn, name="x")`.

    `timeout` is in seconds. The texts of `public_errors` may reach the caller. `idempotent` says that a call whose
    worker died may be sent again. Raises TypeError or ValueError for what cannot be exposed. Returns `fn` itself.
    """

    def add(function: F) -> F:
        current.add(function, name=name, timeout=timeout, public_errors=public_errors, idempotent=idempotent)
        return function

    return add if fn is None else add(fn)
