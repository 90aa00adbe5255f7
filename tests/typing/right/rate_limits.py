"""Rate limiters and barriers."""

from __future__ import annotations

from collections.abc import Callable

import redis
from typing_extensions import assert_type

from greenq.middleware import GroupCallbacks
from greenq.rate_limits import (
    Barrier,
    BucketRateLimiter,
    ConcurrentRateLimiter,
    RateLimiter,
    RateLimiterBackend,
    RateLimitExceeded,
    WindowRateLimiter,
)
from greenq.rate_limits.backends import MemcachedBackend, RedisBackend, SqliteBackend, StubBackend

backend = StubBackend()
limiters: list[RateLimiter] = [
    ConcurrentRateLimiter(backend, "one", limit=30, ttl=1000),
    BucketRateLimiter(backend, "two", limit=30, bucket=1000),
    WindowRateLimiter(backend, "three", limit=30, window=60),
]
for limiter in limiters:
    with limiter.acquire() as acquired:
        assert_type(acquired, bool)
    with limiter.acquire(raise_on_failure=False, wait=500) as acquired:
        print(acquired)
    try:
        with limiter.acquire():
            pass
    except RateLimitExceeded as error:
        print(error.message)


async def acquire(limiter: RateLimiter) -> None:
    async with limiter.aacquire(wait=1000) as acquired:
        assert_type(acquired, bool)


barrier = Barrier(backend, "barrier", ttl=1000)
assert_type(barrier.create(parties=2), bool)
assert_type(barrier.wait(block=False), bool)
assert_type(barrier.wait(timeout=1000), bool)
GroupCallbacks(backend, barrier_ttl=1000)


def make() -> list[RateLimiterBackend]:
    return [
        SqliteBackend("limits.db", synchronous="NORMAL"),
        RedisBackend(url="redis://127.0.0.1"),
        RedisBackend(client=redis.Redis()),
        MemcachedBackend(servers=["127.0.0.1:11211"], pool_size=4),
    ]


class Counting(RateLimiterBackend):
    """As the API reference has it."""

    def add(self, key: str, value: int, ttl: int) -> bool:
        return True

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        return True

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        return True

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        return True


ConcurrentRateLimiter(Counting(), "four")
