"""What the jobs of all queues do, and what they tell the benchmark of it.

The same few lines for each queue, with nothing but the standard library, because each has an
environment of its own. Coroutines among them are for queues on asyncio; see telling.py for the
benchmark's end.
"""

from __future__ import annotations

import asyncio
import os
import time

from telling import Stretch, expected, tell

NAP_S = 0.1
PARKED_S = 600

_stretch = Stretch(expected)
_parked = 0
_late_ms: list[float] = []


def noop(number: int) -> None:
    """Return at once."""
    _stretch.begin()
    _stretch.end()


def nap(number: int) -> None:
    """Wait for 100 ms, as for an answer from the network."""
    _stretch.begin()
    time.sleep(NAP_S)
    _stretch.end()


def park(number: int) -> None:
    """Wait until the worker is killed."""
    _count_parked()
    time.sleep(PARKED_S)


def ping(number: int) -> None:
    """Say when it started, and where."""
    tell(started=time.monotonic(), pid=os.getpid())


def due(due_ms: int) -> None:
    """Tell how late each of them began, once all have."""
    _late_ms.append(time.time() * 1000 - due_ms)
    if len(_late_ms) == expected:
        late_ms = sorted(_late_ms)
        tell(p50_ms=late_ms[len(late_ms) // 2], p99_ms=late_ms[len(late_ms) * 99 // 100])


async def nap_on_loop(number: int) -> None:
    """Wait for 100 ms as a coroutine."""
    _stretch.begin()
    await asyncio.sleep(NAP_S)
    _stretch.end()


async def park_on_loop(number: int) -> None:
    """Wait as a coroutine until the worker is killed."""
    _count_parked()
    await asyncio.sleep(PARKED_S)


def _count_parked() -> None:
    global _parked
    _parked += 1
    if _parked == expected:
        tell(all_started=time.monotonic(), pid=os.getpid())
