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
    """Note as progress the longest pause of the last second or two, in milliseconds, and the most CPU in one.

    What else the machine does makes a pause longer, and the CPU in it hardly more.
    """
    before, before_cpu, worst_ms, worst_cpu_ms = 0.0, 0.0, 0.0, 0.0
    since = last = time.monotonic()
    last_cpu = time.thread_time()
    while True:
        time.sleep(_EVERY_S)
        now, cpu = time.monotonic(), time.thread_time()
        worst_cpu_ms = max(worst_cpu_ms, (cpu - last_cpu) * 1000)
        last_cpu = cpu
        worst_ms = max(worst_ms, (now - last - _EVERY_S) * 1000)
        last = now
        if now - since > _FORGOTTEN_AFTER_S:
            before, before_cpu, worst_ms, worst_cpu_ms, since = worst_ms, worst_cpu_ms, 0.0, 0.0, now
        greenq.progress(max(before, worst_ms), max(before_cpu, worst_cpu_ms))
