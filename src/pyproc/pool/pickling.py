"""Pickles a caller's function for the sandbox. The only module of this side that knows a pickle, and it only ever writes one.

What the sandbox can import travels as a name, as everywhere: the standard library, installed packages, modules beside a script
whose folder is listed. What it cannot, a program's own modules above all, travels with its code, as cloudpickle does for
`__main__`. Without that a function would only run if the program were installed.

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


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc] - it ships without type information
    """`added`: the modules that it put on cloudpickle's list."""

    def __init__(self, file: io.BytesIO, folders: tuple[str, ...]) -> None:
        super().__init__(file)
        self._folders = folders
        self.added: dict[str, ModuleType] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType | ModuleType | type):
            self._consider(obj if isinstance(obj, ModuleType) else sys.modules.get(obj.__module__))
        return super().reducer_override(obj)

    def _consider(self, module: ModuleType | None) -> None:
        if module is None or sys.modules.get(module.__name__) is not module or self._is_inside(module):
            return  # of what is not in sys.modules the code travels anyway
        if module.__name__ not in self.added and module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            self.added[module.__name__] = module

    def _is_inside(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        if file is None:
            return getattr(module, "__spec__", None) is not None  # built in, frozen, a namespace
        return any(beneath(file, folder) for folder in self._folders)


def pickler(folders: tuple[str, ...]) -> Callable[[Any], bytes]:
    """What pickles for a sandbox that imports from `folders`. It raises whatever an object's own code raises, and PicklingError."""

    def dumps(value: Any) -> bytes:
        file = io.BytesIO()
        with _list:
            pickling = _Pickler(file, folders)
            try:
                pickling.dump(value)
            finally:
                for module in pickling.added.values():
                    cloudpickle.unregister_pickle_by_value(module)
        return file.getvalue()

    return dumps
