"""Tells the log of an outage of the broker: one line when it begins, one when it ends.

Many tasks of a worker notice the same outage, each in its own time: the consumer and the
completer of every queue. It lasts from the first failure of any of them until all work.
"""

from __future__ import annotations

import time

from ..logging import get_logger
from ..runtime import Runtime


class Outage:
    """Whether the broker is away, as far as this worker knows.

    Parameters:
      runtime(Runtime): The world.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.logger = get_logger(__name__, type(self))
        self._lock = runtime.lock()
        self._failing: set[object] = set()
        self._since = 0.0

    def note_failure(self, task: object, error: Exception) -> None:
        """A task cannot reach the broker, and tries again."""
        with self._lock:
            is_first = not self._failing
            if is_first:
                self._since = time.monotonic()
            self._failing.add(task)
        if is_first:
            self.logger.critical("The broker is away: %s. Trying again until it is back.", error)

    def note_success(self, task: object) -> None:
        """The broker answered a task."""
        if task not in self._failing:
            return
        with self._lock:
            self._failing.discard(task)
            is_last = not self._failing
        if is_last:
            self.logger.info("The broker is back, after %.1f s.", time.monotonic() - self._since)
