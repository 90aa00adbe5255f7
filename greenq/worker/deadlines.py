"""Interrupts actors at their time limits.

One timer serves all jobs: it is armed for the nearest deadline, so a job that ends in
time costs two list operations and no timer of its own.
"""

from __future__ import annotations

import heapq
import itertools
import time

from ..errors import TimeLimitExceeded
from ..runtime import Interruptible, Runtime, Timer

#: Entries of ended jobs stay in the heap until they surface; when there are this many,
#: and more than there are live ones, the heap is built anew.
_MOST_ENDED = 1000
#: After how long an interrupt is tried again that came too early.
_AGAIN_S = 0.001


class Deadline:
    """One job's limit. ``guard`` is None once the job has ended."""

    __slots__ = ("guard",)

    def __init__(self, guard: Interruptible) -> None:
        self.guard: Interruptible | None = guard


class Deadlines:
    """The deadlines of all jobs that run, nearest first."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._ended = 0
        self._numbers = itertools.count()
        self._timer: Timer | None = None
        self._armed_for = float("inf")

    def start(self, guard: Interruptible, limit_ms: float) -> Deadline:
        """Interrupt what this guard guards when this many milliseconds have passed."""
        at = time.monotonic() + limit_ms / 1000
        deadline = Deadline(guard)
        with self._lock:
            heapq.heappush(self._heap, (at, next(self._numbers), deadline))
            if at < self._armed_for:
                self._arm(at)
        return deadline

    def stop(self, deadline: Deadline) -> None:
        """The job has ended: its deadline does not matter any more."""
        deadline.guard = None
        self._ended += 1
        if self._ended > _MOST_ENDED and self._ended * 2 > len(self._heap):
            with self._lock:
                self._heap = [entry for entry in self._heap if entry[2].guard is not None]
                heapq.heapify(self._heap)
                self._ended = 0

    def close(self) -> None:
        """Interrupt nobody any more."""
        with self._lock:
            self._heap.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = at
        self._timer = self._runtime.call_later(max(0.0, at - time.monotonic()), self._fire)

    def _fire(self) -> None:
        overdue = []
        with self._lock:
            self._timer = None
            self._armed_for = float("inf")
            now = time.monotonic()
            while self._heap:
                at, _, deadline = self._heap[0]
                if deadline.guard is None:
                    self._ended -= 1
                elif at <= now:
                    overdue.append(deadline)
                else:
                    self._arm(at)
                    break
                heapq.heappop(self._heap)
        for deadline in overdue:
            guard = deadline.guard
            if guard is not None and not guard.interrupt(TimeLimitExceeded) and deadline.guard is not None:
                # The job has a thread of its own, which has not come to the actor yet.
                self._again(deadline)

    def _again(self, deadline: Deadline) -> None:
        at = time.monotonic() + _AGAIN_S
        with self._lock:
            heapq.heappush(self._heap, (at, next(self._numbers), deadline))
            if at < self._armed_for:
                self._arm(at)
