import importlib
import sys

fresh = [name for name in ("wsgiref.util", "xml.dom.minidom", "difflib", "imaplib", "sched", "colorsys") if name not in sys.modules]
assert len(fresh) >= 4
for name in fresh:
    importlib.import_module(name)
try:
    importlib.import_module("no_such_module_anywhere")
except ModuleNotFoundError:
    pass
