"""Every bound of the language, each with its unit and its reason.

Only numbers live here. A bound that an operator may change (`limits.request`, `limits.response`) is the
default of a parameter elsewhere; a bound that both ends must agree on is fixed here and nowhere else.
"""

from __future__ import annotations

from typing import Final

HEADER_BYTES: Final = 4
"""Bytes of the length in front of each payload: unsigned, big-endian."""

FRAME_BYTES_MAX: Final = 2**32 - 1
"""Bytes: the longest payload that the header can name."""

RECV_BYTES: Final = 64 * 1024
"""Bytes asked of one recv: an ordinary message arrives in one call, and a buffer of this size comes from
the pool."""

MAX_DEPTH: Final = 64
"""Containers inside one another in a value. Far above real bodies, far below any recursion limit."""

MAX_KEYS: Final = 100_000
"""Keys of all maps in one value together: bounds the time and memory that hashing hostile keys may cost."""

MAX_CONTAINERS: Final = 1_000_000
"""Lists, maps, tuples and sets in one value together: an empty list is one byte on the wire and 64 in memory, so that bytes
alone do not bound what a peer makes us hold. A million take about 90 MB and a second; longer tables travel as arrays or in parts."""

REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a request's payload, by default (`limits.request`)."""

RESPONSE_BYTES: Final = 64 * 1024 * 1024
"""Bytes of an answer's payload, by default (`limits.response`)."""

ARENA_VALUE_BYTES: Final = 256 * 1024
"""Bytes: an array or bytes at least so long lie in an arena where there is one. Shorter ones take no longer in a frame."""

READY_BYTES: Final = 1024 * 1024
"""Bytes that a worker may say of itself, whatever the limit of its answers is; the supervisor takes no more."""

PARTS_AHEAD: Final = 16
"""Parts of a stream that may be sent before the first credit arrives."""

BATCH_ITEMS: Final = 4096
"""Items of a batch: what one request may ask for, and what is run ahead of whoever reads the results."""

CREDIT_MAX: Final = 65_535
"""Parts: the largest credit and the cap of credits added up."""

ID_MAX: Final = 2**64 - 1
"""The largest call id: an unsigned 64-bit integer."""

INT_MIN: Final = -(2**63)
"""The smallest integer in a value: what MessagePack holds."""

INT_MAX: Final = 2**64 - 1
"""The largest integer in a value: what MessagePack holds."""

DEADLINE_MS_MAX: Final = 2**63 - 1
"""Milliseconds: a signed 64-bit integer, so that every language can hold it."""

PUBLIC_TEXT_BYTES: Final = 4096
"""Bytes of an error text in UTF-8: a sentence for a caller, not a channel for results."""

CANCEL_REASON_BYTES: Final = 1024
"""Bytes of a cancel's reason in UTF-8."""

PATH_CHARS: Final = 256
"""Characters of a path such as `$.rows[2].width`: enough to find the place, too little to carry the value."""

TYPE_NAME_CHARS: Final = 256
"""Characters of the name of an exception's type in a report."""

REPORT_BYTES: Final = 64 * 1024
"""Bytes of a traceback in a report: it goes to a log, and a log record stays bounded."""

ERRNO_MAX: Final = 4095
"""The largest errno: the kernel's MAX_ERRNO."""

REFUSED_PATH_BYTES: Final = 4096
"""Bytes of a refused path in UTF-8: the kernel's PATH_MAX."""

ASKED_CHARS: Final = 64
"""Characters of the name of a callable that was refused something."""

OUTPUT_MAX: Final = 2**63 - 1
"""Bytes that a call can be said to have written: a signed 64-bit integer."""
