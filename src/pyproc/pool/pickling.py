"""Pickles a caller's function for the sandbox. The only module of this side that knows a pickle, and it only ever writes one.

What the sandbox can import travels as a name, as everywhere: the standard library, installed packages, modules beside a script
whose folder is listed. Functions and classes that it cannot import, a program's own above all, travel with their code, as
cloudpickle does for `__main__`, and with those globals that the code names. Without that a function would only run if the program
were installed.

A module as a whole does not: all that it holds would go with it, and a module of settings holds secrets. It is refused, unless
the program says otherwise by `cloudpickle.register_pickle_by_value`.

cloudpickle keeps one process-wide list of modules that travel with their code. A module is on it while it is pickled and no
longer, so that what else in the program uses cloudpickle does not change for good.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from pyproc.sandbox.paths import beneath

_list = threading.RLock()  # held while it is changed; an object's own code may pickle in turn


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it ships without type information
    def __init__(self, file: io.BytesIO, folders: tuple[str, ...]) -> None:
        super().__init__(file)
        self._folders = folders
        self._added: dict[str, ModuleType] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ModuleType):
            self._refuse_whole(obj)
        elif isinstance(obj, FunctionType | type):
            self._send_code(sys.modules.get(getattr(obj, "__module__", None) or ""))
        return super().reducer_override(obj)

    def _send_code(self, module: ModuleType | None) -> None:
        if module is None or not _is_imported(module) or self._is_inside(module):
            return  # of what is not in sys.modules the code travels anyway
        if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            self._added[module.__name__] = module

    def _refuse_whole(self, module: ModuleType) -> None:
        if not _is_imported(module) or self._is_inside(module):
            return
        names = {module.__name__[:end] for end, mark in enumerate(module.__name__ + ".") if mark == "."}
        if names.isdisjoint(cloudpickle.list_registry_pickle_by_value() - self._added.keys()):
            raise TypeError(f"it uses the module {module.__name__!r} as a whole, which the sandbox cannot import; import the names "
                            f"that it uses (from {module.__name__} import …), or install the module where the pool's interpreter "
                            "finds it")

    def forget(self) -> None:
        """Take off cloudpickle's list what was put there."""
        for module in self._added.values():
            cloudpickle.unregister_pickle_by_value(module)

    def _is_inside(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        if file is None:
            return getattr(module, "__spec__", None) is not None  # built in, frozen, a namespace
        return any(beneath(file, folder) for folder in self._folders)


def _is_imported(module: ModuleType) -> bool:
    return sys.modules.get(module.__name__) is module


def pickler(folders: tuple[str, ...]) -> Callable[[Any], bytes]:
    """What pickles for a sandbox that imports from `folders`. It raises whatever an object's own code raises, and PicklingError."""

    def dumps(value: Any) -> bytes:
        file = io.BytesIO()
        with _list:
            pickling = _Pickler(file, folders)
            try:
                pickling.dump(value)
            finally:
                pickling.forget()
        return file.getvalue()

    return dumps
