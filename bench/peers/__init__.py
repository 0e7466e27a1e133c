"""Whom we measure ourselves against: one small class `Peer` in a file of its own for each, all with the same methods.

    Peer(workers, fresh=False)      a pool that serves, once it is made or at its first call; `fresh`: each call in a new process
    call(name, body)                the answer of work.NAME
    submit(name, body)              a function that waits for the answer
    map(name, bodies, chunk)        the list of answers; `chunk` calls travel together, None: what the peer does unasked
    pids()                          of the workers
    close()

What a peer does not have it leaves out, or answers with `NotOffered`, and the table shows a dash. An asynchronous peer has
`run(coroutine)`, and its `call` is a coroutine. Every peer is used as its documentation says, with the defaults of its maker.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple


class NotOffered(Exception):
    """The peer has no such thing; the table shows a dash."""


class Entry(NamedTuple):
    """`file` in this folder; `needs`: the package without which there is no such peer; `apart`: its processes work while it is not
    asked, so that it is measured when the others are gone."""

    file: str
    needs: str = ""
    apart: bool = False

    @property
    def installed(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


PEERS = {
    "pyproc": Entry("pyproc_pool"),
    "pyproc, asyncio": Entry("pyproc_async"),
    "pyproc, asyncio, prefetch 16": Entry("pyproc_ahead"),
    "bare socket": Entry("bare_socket"),
    "multiprocessing.Pool": Entry("multiprocessing_pool"),
    "ProcessPoolExecutor": Entry("process_pool_executor"),
    "loky": Entry("loky_executor", "loky"),
    "pebble": Entry("pebble_pool", "pebble"),
    "Ray": Entry("ray_actors", "ray", apart=True),
    "Dask": Entry("dask_cluster", "distributed", apart=True),
}
