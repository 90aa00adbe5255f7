"""Tells the log of an outage of the broker: one line when it begins, one when it ends.

Many tasks of a worker notice the same outage, each in its own time: the consumer and the
completer of every queue. It lasts from the first failure of any of them until all work, and
go on to: a broker that comes back may go away a few times more before it stays. Here is also
for how long they pause; they wait themselves. An outage at the start is in arrival.py.
"""

from __future__ import annotations

import time

from ..backoff import backoff_ms
from ..logging import get_logger
from ..runtime import Runtime, Timer
from ..settings import RESTART_DELAY

#: Seconds without a failure after which an outage is over.
_STEADY_S = 1.0

#: Between two tries while the broker is away. The longest is RESTART_DELAY, and short by default,
#: too: a broker that is back is to be used at once, and a try a second of each worker is nothing to it.
_SHORTEST_PAUSE_MS = 50


def pause_s(failures: int) -> float:
    """Seconds until the next try, with jitter: the workers of an outage must not all come back at once.

    Parameters:
      failures(int): Tries that failed before this one, so 0 at the first.
    """
    return backoff_ms(failures, min_backoff_ms=_SHORTEST_PAUSE_MS, max_backoff_ms=RESTART_DELAY.get()) / 1000


class Outage:
    """Whether the broker is away, as far as this worker knows.

    Parameters:
      runtime(Runtime): The world.

    Raises:
      ValueError: RESTART_DELAY is no duration. Now, because later whoever waits could not be told.
    """

    def __init__(self, runtime: Runtime) -> None:
        RESTART_DELAY.get()
        self.logger = get_logger(__name__, type(self))
        self._lock = runtime.lock()
        self._runtime = runtime
        #: How many outages are over.
        self.ended = 0
        self._failing: set[object] = set()
        self._began = 0.0
        self._works_since: float | None = None  # while it is not told that it is over
        self._timer: Timer | None = None

    @property
    def is_on(self) -> bool:
        """Whether it lasts now."""
        return bool(self._failing)

    def note_failure(self, task: object, error: Exception) -> None:
        """A task cannot reach the broker, and tries again."""
        with self._lock:
            goes_on = self._failing or self._works_since is not None
            if not goes_on:
                self._began = time.monotonic()
            self._works_since = None
            self._failing.add(task)
        if not goes_on:
            self.logger.critical("The broker is away: %s. Trying again until it is back.", error)

    def note_success(self, task: object) -> None:
        """The broker answered a task."""
        if task not in self._failing:
            return
        with self._lock:
            self._failing.discard(task)
            if self._failing:
                return
            works_since = self._works_since = time.monotonic()
        self._timer = self._runtime.call_later(_STEADY_S, lambda: self._look(works_since))

    def _look(self, works_since: float) -> None:
        if self._works_since == works_since:
            # In a task, because the log may have to be waited for.
            self._runtime.spawn(self._tell_end, name="outage")

    def close(self) -> None:
        """Tell now of an outage that is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._tell_end()

    def _tell_end(self) -> None:
        with self._lock:
            works_since, self._works_since = self._works_since, None
        if works_since is not None:
            self.ended += 1
            self.logger.info("The broker is back, after %.1f s.", works_since - self._began)
