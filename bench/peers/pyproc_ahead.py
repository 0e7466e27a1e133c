"""Ours for asyncio, with calls sent ahead to busy workers."""

from __future__ import annotations

from peers import pyproc_async


class Peer(pyproc_async.Peer):
    PREFETCH = 16
