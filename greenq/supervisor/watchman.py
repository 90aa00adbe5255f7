"""Looks at the workers' pages twice a second: who is stuck, and who has how much memory.

A worker is stuck when it has shown itself that it is to be killed by now (``kill_at``: a job is
past its hard limit), or when its native thread has not moved for two thirds of its lease: then
C code holds the interpreter, and the lease is about to be lost, so that others would run what it
still runs. A worker that is busy beats on.

Whether something moves is counted in looks, not by the clock, and the look after a pause counts for nobody: a
supervisor that was paused itself, or a machine that slept, would else blame all of its workers on waking.
``kill_at`` is a time by the clock, and a worker that was paused as well has until the next look to put it off.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from .child import Child, Stuck

LOOK_EVERY_S = 0.5

#: Every other look, so once a second.
_MEASURE_EVERY = 2

#: A look that comes so many seconds late says that this process was paused, not that a worker was.
_PAUSED_S = 2.0

#: Of a broker without leases: as long as others have by default.
_DEFAULT_LEASE_MS = 15_000


@dataclass
class _Watched:
    process: psutil.Process | None
    beats: int = 0
    still_for: int = 0


class Watchman:
    """Watches workers."""

    def __init__(self) -> None:
        self._watched: weakref.WeakKeyDictionary[Child, _Watched] = weakref.WeakKeyDictionary()
        self._next_look_at = time.monotonic() + LOOK_EVERY_S
        self._looks = 0

    def greet(self, child: Child) -> None:
        """Watch a worker that has become ready."""
        watched = self._watched[child] = _Watched(_process(child))
        child.memory = _memory(watched.process)

    def next_due(self) -> list[float]:
        """Monotonic seconds at which the next look is due."""
        return [self._next_look_at]

    def look(self, workers: Iterable[Child]) -> list[tuple[Child, Stuck]]:
        """Those that are found to be stuck, each with what is known of it; if a look is due."""
        now = time.monotonic()
        if now < self._next_look_at:
            return []
        was_paused = now - self._next_look_at > _PAUSED_S
        self._next_look_at = now + LOOK_EVERY_S
        self._looks += 1
        found = []
        for child in workers:
            watched = self._watched.get(child)
            if watched is None or child.killed or child.stuck:
                continue
            if self._looks % _MEASURE_EVERY == 0:
                child.memory = _memory(watched.process) or child.memory
            if not was_paused:
                reason = self._reason(child, watched, now)
                if reason is not None:
                    found.append((child, Stuck(reason)))
        return found

    def _reason(self, child: Child, watched: _Watched, now: float) -> str | None:
        page = child.page
        if page is None:
            return None
        if 0 < page.kill_at <= now:
            return "a job kept it busy beyond its time limit and --hard-limit"
        beats = page.beats
        # A page that was never written to is one of a worker that is not watched.
        watched.still_for = watched.still_for + 1 if beats and beats == watched.beats else 0
        watched.beats = beats
        patience_s = (child.lease_ms or _DEFAULT_LEASE_MS) / 1000 * 2 / 3
        if watched.still_for < math.ceil(patience_s / LOOK_EVERY_S):
            return None
        return (
            f"nothing in it moved for {patience_s:g} s, two thirds of its lease: C code held the interpreter, "
            "or the process was paused"
        )


def _process(child: Child) -> psutil.Process | None:
    try:
        return psutil.Process(child.pid)
    except psutil.Error:
        return None


def _memory(process: psutil.Process | None) -> int | None:
    try:
        return process.memory_info().rss if process is not None else None
    except (psutil.Error, OSError):
        return None
