"""Interrupts actors at their time limits, and tells of those that go on.

One timer serves all jobs: it is armed for the nearest deadline, so a job that ends in
time costs two list operations and no timer of its own.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

from ..cpu import cpu
from ..errors import TimeLimitExceeded
from ..logging import get_logger
from ..runtime import Interruptible, Runtime, Timer

_logger = get_logger(__name__, "Deadlines")

_NEVER = float("inf")

#: A limit that is further away is none: no timer of the system takes it. A hundred years.
_LONGEST_MS = 100 * 365 * 24 * 3_600_000

#: Entries of ended jobs stay in the heap until they surface; when there are this many more than twice
#: the live ones, the heap is built anew.
_MOST_ENDED = 1000
#: After how long an interrupt is tried again that came too early.
_AGAIN_S = 0.001

#: What happens next to a job that goes on.
_SOFT, _LIMIT, _HARD = range(3)


class Deadline:
    """One job's limits. ``guard`` is None once the job has ended."""

    guard: Interruptible | None = None
    stage = _LIMIT


class Deadlines:
    """The deadlines of all jobs that run, nearest first.

    A job has one at a time: its soft limit, then its limit, then, if it goes on all the same, its hard limit.

    Attributes:
      arm_alarm(Callable[[float], None]): Called with the nearest of all, in monotonic seconds, whenever that
        changes; infinity for none. Default: nobody.
      on_soft(Callable): Called with the guard of a job that has passed its soft limit. Must not wait. Default: nobody.
      on_overdue(Callable): The same ``hard_ms`` after a limit, with a job that was interrupted and goes on.
      hard_ms(float): Milliseconds. Default: infinity, which is never.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._heap: list[tuple[float, int, Deadline]] = []
        #: How many jobs run that have one. Among threads not to the last one, so it is set right now and then.
        self._live = 0
        self._numbers = itertools.count()
        self._timer: Timer | None = None
        self._armed_for = _NEVER
        self.arm_alarm: Callable[[float], None] = _nobody
        self.on_soft: Callable[[Interruptible], None] = _nobody
        self.on_overdue: Callable[[Interruptible], None] = _nobody
        self.hard_ms = _NEVER

    def start(self, guard: Interruptible, limit_ms: float | None, soft_ms: float | None = None) -> Deadline | None:
        """Interrupt what this guard guards when this many milliseconds have passed; None if they never will.

        Parameters:
          limit_ms(float | None): None for never, and so are infinity, not-a-number, and more than a hundred years.
          soft_ms(float | None): After how many ``on_soft`` is called. Default: never.
        """
        # Called once a job, and so without a call of its own for each step.
        now = cpu.since = time.monotonic()  # the actor's own code starts here
        at = _NEVER
        if limit_ms is not None and limit_ms < _LONGEST_MS:
            at = guard.ends_at = now + limit_ms / 1000
        deadline = Deadline()
        deadline.guard = guard
        if soft_ms is not None and soft_ms < _LONGEST_MS and now + soft_ms / 1000 < at:
            at = guard.soft_at = now + soft_ms / 1000
            deadline.stage = _SOFT
        if at == _NEVER:
            return None
        with self._lock:
            is_late = self._armed_for < now
            if at < self._armed_for:
                self._arm(at)  # first, because it may fail
            heapq.heappush(self._heap, (at, next(self._numbers), deadline))
            self._live += 1
            if is_late:
                # The hub has not come to its timer yet, and the alarm may have rung for it already.
                self.arm_alarm(at)
        return deadline

    def stop(self, deadline: Deadline) -> None:
        """The job has ended: its deadline does not matter any more."""
        deadline.guard = None
        self._live -= 1
        if len(self._heap) > _MOST_ENDED + 2 * self._live:
            with self._lock:
                self._heap = [entry for entry in self._heap if entry[2].guard is not None]
                heapq.heapify(self._heap)
                self._live = len(self._heap)

    def guards(self) -> list[Interruptible]:
        """Of all jobs that have a limit and run. From any thread, while the hub does not turn."""
        return [guard for _, _, deadline in list(self._heap) if (guard := deadline.guard) is not None]

    def close(self) -> None:
        """Interrupt nobody any more."""
        with self._lock:
            self._heap.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.arm_alarm(_NEVER)

    def _push(self, at: float, deadline: Deadline) -> None:
        if at < self._armed_for:
            self._arm(at)  # first, because it may fail
        heapq.heappush(self._heap, (at, next(self._numbers), deadline))

    def _arm(self, at: float) -> None:
        timer = self._runtime.call_later(max(0.0, at - time.monotonic()), self._fire)
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = timer, at
        self.arm_alarm(at)

    def _fire(self) -> None:
        due = []
        try:
            with self._lock:
                self._timer = None
                self._armed_for = _NEVER
                now = time.monotonic()
                while self._heap:
                    at, _, deadline = self._heap[0]
                    if deadline.guard is not None:
                        if at > now:
                            self._arm(at)
                            break
                        due.append(deadline)
                    heapq.heappop(self._heap)
                else:
                    self.arm_alarm(_NEVER)
        finally:
            for deadline in due:
                guard = deadline.guard
                if guard is not None:
                    try:
                        self._pass(deadline, guard)
                    except Exception:  # the others have limits, too
                        _logger.exception("A time limit could not be kept.")

    def _pass(self, deadline: Deadline, guard: Interruptible) -> None:
        """A limit of a job has passed."""
        if deadline.stage == _SOFT:
            deadline.stage = _LIMIT
            if guard.soft_at is not None:  # the watch tells of a job that never waits
                guard.soft_at = None
                self.on_soft(guard)
            self._go_on(deadline, guard.ends_at)
        elif deadline.stage == _LIMIT:
            # The alarm may have interrupted it before. Once is enough: what it does then is its clean-up.
            if guard.interrupted_by is TimeLimitExceeded or guard.interrupt(TimeLimitExceeded):
                deadline.stage = _HARD
                ends_at = guard.ends_at
                self._go_on(deadline, None if ends_at is None else ends_at + self.hard_ms / 1000)
            elif guard.ends_at is not None and time.monotonic() >= guard.ends_at + self.hard_ms / 1000:
                self.on_overdue(guard)
            else:
                # The job has a thread of its own, which has not come to the actor yet.
                self._go_on(deadline, time.monotonic() + _AGAIN_S)
        else:
            self.on_overdue(guard)

    def _go_on(self, deadline: Deadline, at: float | None) -> None:
        """Come back to a job then, unless it has ended."""
        with self._lock:
            if deadline.guard is not None and at is not None and at != _NEVER:
                self._push(at, deadline)


def _nobody(of: object) -> None:
    pass
