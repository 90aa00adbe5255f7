"""A limit on how many do something at the same time."""

from __future__ import annotations

from .backend import RateLimiterBackend
from .rate_limiter import RateLimiter


class ConcurrentRateLimiter(RateLimiter):
    """Lets up to ``limit`` holders do something at the same time. With a limit of 1 it is a mutex.

    Each holder has a lease of its own. A holder that was killed has its slot until the lease is
    over, however busy the others are; one that takes longer than its lease loses the slot.

    Parameters:
      backend(RateLimiterBackend): Where it counts.
      key(str): What is limited.
      limit(int): How many at the same time. Default: 1.
      ttl(int): The lease, in milliseconds: longer than what is done takes, and not much. Default:
        15 minutes.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, limit: int = 1, ttl: int = 900_000) -> None:
        assert limit >= 1, "a limit is 1 or more"
        assert ttl >= 1, "a ttl is 1 ms or more"
        super().__init__(backend, key)
        self.limit = limit
        self.ttl = ttl

    def _acquire(self, holder: str) -> bool:
        return self.backend.take(self.key, holder, self.limit, self.ttl)

    def _release(self, holder: str) -> None:
        self.backend.give_back(self.key, holder, self.ttl)
