"""Counts on Redis: every change is one script (see scripts/)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...stores.redis.client import Script, call, command
from ...stores.redis.values import RedisValues
from ..backend import WaitingBackend

if TYPE_CHECKING:
    import redis

_ADD = Script(__package__, "add", is_repeatable=False)
_INCR = Script(__package__, "incr", is_repeatable=False)
_DECR = Script(__package__, "decr", is_repeatable=False)
_INCR_AND_SUM = Script(__package__, "incr_and_sum", is_repeatable=False)
_TAKE = Script(__package__, "take", is_repeatable=True)
_ARRIVE = Script(__package__, "arrive", is_repeatable=True)


class RedisBackend(WaitingBackend):
    """A rate limiter backend for Redis.

    Leases are measured by the server's clock.

    Parameters:
      client(Redis): A client of redis-py; then all other parameters are ignored. Default: one
        that repeats nothing and has time-outs of 5 seconds.
      url(str): The address, as redis-py has it; then it comes before the parameters.
      **parameters: For redis.Redis.

    Attributes:
      client: The client.
    """

    def __init__(
        self, *, client: redis.Redis | redis.RedisCluster | None = None, url: str | None = None, **parameters: Any
    ) -> None:
        values = RedisValues(client, url, parameters)
        super().__init__(values)
        self.client = values.client

    def add(self, key: str, value: int, ttl: int) -> bool:
        return bool(call(self.client, _ADD, [key], [value, ttl]))

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        return bool(call(self.client, _INCR, [key], [amount, maximum, ttl]))

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        return bool(call(self.client, _DECR, [key], [amount, minimum, ttl]))

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        return bool(call(self.client, _INCR_AND_SUM, [key, *keys()], [amount, maximum, ttl]))

    def take(self, key: str, holder: str, limit: int, ttl: int) -> bool:
        return bool(call(self.client, _TAKE, [_holders(key)], [holder, limit, ttl]))

    def give_back(self, key: str, holder: str, ttl: int) -> None:
        command(self.client, "ZREM", _holders(key), holder)

    def arrive(self, key: str, member: str, parties: int, ttl: int) -> bool:
        return bool(call(self.client, _ARRIVE, [key + "@arrived"], [member, parties, ttl]))


def _holders(key: str) -> str:
    return key + "@holders"
