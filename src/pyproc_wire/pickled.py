"""The call that carries a function: how a pool's executor asks a worker to run what it pickled.

    supervisor                                                               worker
       | -- request{method: PICKLED, body: {"pickle": bytes, "each": bool}} -> | loads (function, arguments, keywords), runs it
       | <--------------------------------- success{body: the value as data} - |

The pickle travels in this direction only. PICKLED is no name that a script could expose, a role allow or a caller call: it is never
announced, and a pool sends it for its executor alone.
"""

from __future__ import annotations

from typing import Final

PICKLED: Final = "<pickled>"
"""The method. Its characters are outside of those of a function's name."""

PICKLE: Final = "pickle"
"""Key of the body: bytes, the pickle of (function, arguments, keywords)."""

EACH: Final = "each"
"""Key of the body: whether the arguments are a list of argument lists, and the value is a list of values."""
