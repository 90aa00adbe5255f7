"""The wall clock, for what is stored.

Use ``time.monotonic()`` for what is waited for: the wall clock can jump.
"""

from __future__ import annotations

import time


def now_ms() -> int:
    """The time now, in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
