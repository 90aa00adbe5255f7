"""A limit on how often something is done in the last seconds."""

from __future__ import annotations

import random
import time

from .backend import RateLimiterBackend
from .rate_limiter import RateLimiter

_JITTER_S = 0.01

#: What others have done in so many seconds that have not begun by the clock of this process counts as well: theirs
#: may be ahead, or the next second may have begun since this process looked at its own.
_AHEAD_S = 5


class WindowRateLimiter(RateLimiter):
    """Lets something be done up to ``limit`` times in a window of seconds that moves on.

    It counts by whole seconds of the clock, the one that has just begun included. All who share it should have the
    same time. What others did whose clocks are up to 5 seconds ahead is counted; but one that is ahead itself leaves
    out the oldest of what the others did, as many seconds of it as it is ahead, and lets in more for that.

    Parameters:
      backend(RateLimiterBackend): Where it counts.
      key(str): What is limited.
      limit(int): How often. Default: 1.
      window(int): The length of the window, in seconds (not milliseconds): each costs a
        counter. Default: 1.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, limit: int = 1, window: int = 1) -> None:
        assert limit >= 1, "a limit is 1 or more"
        assert window >= 1, "a window is 1 second or more"
        super().__init__(backend, key)
        self.limit = limit
        self.window = window

    def _acquire(self, holder: str) -> bool:
        ttl_ms = (self.window + 1) * 1000
        return self.backend.incr_and_sum(self._keys()[0], self._keys, 1, self.limit, ttl_ms)

    def _keys(self) -> list[str]:
        """The counters of the window, that of the present second first."""
        now = int(time.time())
        # In braces, so that on a cluster they are all in one slot.
        return [f"{{{self.key}}}@{now - age}" for age in (*range(self.window), *range(-_AHEAD_S, 0))]

    def _pause_s(self, refusals: int) -> float:
        return 1 - time.time() % 1 + random.uniform(0, _JITTER_S)
