"""What a worker runs that is looked at: the parked jobs of jobs.py, and one that notices pauses.

A worker imports it as ``looking_jobs:broker``.
"""

from __future__ import annotations

import time

from jobs import PARKED_S, broker, park

import greenq

__all__ = ["broker", "park"]

_EVERY_S = 0.001
_FORGOTTEN_AFTER_S = 1.0


@greenq.actor(time_limit=PARKED_S * 2000)
def notice(number: int) -> None:
    """Note as progress the longest pause of the last second or two, in milliseconds."""
    before, worst_ms = 0.0, 0.0
    since = last = time.monotonic()
    while True:
        time.sleep(_EVERY_S)
        now = time.monotonic()
        worst_ms = max(worst_ms, (now - last - _EVERY_S) * 1000)
        last = now
        if now - since > _FORGOTTEN_AFTER_S:
            before, worst_ms, since = worst_ms, 0.0, now
        greenq.progress(max(before, worst_ms))
