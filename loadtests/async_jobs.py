"""What async workers run that are measured: the actors of jobs.py as coroutines.

A worker imports it as ``async_jobs:broker``; what it sees it tells the benchmark through a
pipe, see telling.py.
"""

from __future__ import annotations

import asyncio
import time

from jobs import LIMIT_MS, PARKED_S, broker
from runs import percentile
from telling import Stretch, expected, tell

import greenq

__all__ = ["broker"]

_stretch = Stretch(expected)
_parked = 0
_late_ms: list[float] = []


@greenq.actor
async def async_noop(number: int) -> None:
    """Return at once."""
    _stretch.begin()
    _stretch.end()


@greenq.actor
async def async_nap(number: int) -> None:
    """Wait for 100 ms, as for an answer from the network."""
    _stretch.begin()
    await asyncio.sleep(0.1)
    _stretch.end()


@greenq.actor(time_limit=PARKED_S * 2000)
async def async_park(number: int) -> None:
    """Wait until the worker is killed."""
    global _parked
    _parked += 1
    if _parked == expected:
        tell(all_started=time.monotonic())
    await asyncio.sleep(PARKED_S)


@greenq.actor(time_limit=LIMIT_MS, max_retries=0)
async def async_overstay(number: int) -> None:
    """Wait for longer than allowed; tell how late the cancellations of all came."""
    started = time.monotonic()
    try:
        await asyncio.sleep(PARKED_S)
    finally:
        _late_ms.append((time.monotonic() - started) * 1000 - LIMIT_MS)
        if len(_late_ms) == expected:
            tell(p50_ms=percentile(_late_ms, 50), p99_ms=percentile(_late_ms, 99))
