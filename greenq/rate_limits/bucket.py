"""A limit on how often something is done in fixed stretches of time."""

from __future__ import annotations

import random

from ..clock import now_ms
from .backend import RateLimiterBackend
from .rate_limiter import RateLimiter

#: Not all processes ask at the same moment when a bucket begins.
_JITTER_S = 0.01


class BucketRateLimiter(RateLimiter):
    """Lets something be done up to ``limit`` times in each bucket of time.

    Buckets follow one another without gaps, from the epoch on. Cheap; but up to twice the limit
    can come close together, at the end of one bucket and at the beginning of the next.

    Parameters:
      backend(RateLimiterBackend): Where it counts.
      key(str): What is limited.
      limit(int): How often. Default: 1.
      bucket(int): The length of a bucket, in milliseconds. Default: 1000.
    """

    def __init__(self, backend: RateLimiterBackend, key: str, *, limit: int = 1, bucket: int = 1000) -> None:
        assert limit >= 1, "a limit is 1 or more"
        assert bucket >= 1, "a bucket is 1 ms or more"
        super().__init__(backend, key)
        self.limit = limit
        self.bucket = bucket

    def _acquire(self, holder: str) -> bool:
        begins_at = now_ms() // self.bucket * self.bucket
        return self.backend.incr(f"{self.key}@{begins_at}", 1, self.limit, self.bucket)

    def _pause_s(self, refusals: int) -> float:
        return (self.bucket - now_ms() % self.bucket) / 1000 + random.uniform(0, _JITTER_S)
