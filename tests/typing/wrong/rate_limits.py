"""What type checkers complain about in the use of rate limiters."""

from __future__ import annotations

from greenq.middleware import GroupCallbacks
from greenq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, RateLimiterBackend, WindowRateLimiter
from greenq.rate_limits.backends import MemcachedBackend, RedisBackend, SqliteBackend, StubBackend
from greenq.results.backends import StubBackend as ResultsInMemory

backend = StubBackend()
limiter = ConcurrentRateLimiter(backend, "one", limit=3)

ConcurrentRateLimiter("redis", "one")  # error: arg-type | reportArgumentType
ConcurrentRateLimiter(ResultsInMemory(), "one")  # error: arg-type | reportArgumentType
ConcurrentRateLimiter(backend, 1)  # error: arg-type | reportArgumentType
ConcurrentRateLimiter(backend, "one", 3)  # error: call-arg | reportCallIssue
ConcurrentRateLimiter(backend, "one", limit="3")  # error: arg-type | reportArgumentType
ConcurrentRateLimiter(backend, "one", bucket=1000)  # error: call-arg | reportCallIssue
BucketRateLimiter(backend, "two", bucket="1s")  # error: arg-type | reportArgumentType
BucketRateLimiter(backend, "two", bucket=0.5)  # error: arg-type | reportArgumentType
WindowRateLimiter(backend, "three", ttl=1000)  # error: call-arg | reportCallIssue
Barrier(backend, "four", ttl="1s")  # error: arg-type | reportArgumentType
Barrier(backend, "four").create("two")  # error: arg-type | reportArgumentType
GroupCallbacks()  # error: call-arg | reportCallIssue
GroupCallbacks(ResultsInMemory())  # error: arg-type | reportArgumentType
SqliteBackend("limits.db", synchronous="OFF")  # error: arg-type | reportArgumentType
RedisBackend(client="redis://127.0.0.1")  # error: arg-type | reportArgumentType
RedisBackend("redis://127.0.0.1")  # error: arg-type, call-arg | reportCallIssue
MemcachedBackend(servers=3)  # error: arg-type | reportArgumentType

with limiter.acquire("now"):  # error: arg-type, call-arg | reportCallIssue
    pass
with limiter.acquire(wait="1s"):  # error: arg-type | reportArgumentType
    pass
with limiter.acquire(block=False):  # error: call-arg | reportCallIssue
    pass
with limiter:  # error: attr-defined | reportGeneralTypeIssues
    pass
with limiter.acquire() as acquired:
    text: str = acquired  # error: assignment | reportAssignmentType


async def acquire() -> None:
    with limiter.aacquire():  # error: attr-defined | reportGeneralTypeIssues
        pass
    async with limiter.acquire():  # error: attr-defined | reportGeneralTypeIssues
        pass


class Counting(RateLimiterBackend):
    def add(self, key: str, value: int) -> bool:  # error: override | reportIncompatibleMethodOverride
        return True

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> int:  # error: override | reportIncompatibleMethodOverride
        return 1

    def decr(self, key: bytes, amount: int, minimum: int, ttl: int) -> bool:  # error: override | reportIncompatibleMethodOverride
        return True
