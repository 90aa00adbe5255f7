"""Counts on memcached, which knows no scripts: a change is written only if nobody was quicker.

Whoever was too slow tries again, for a few seconds at most. Every value carries the time at
which it is over, to the millisecond, because the server counts in seconds.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from ...clock import now_ms
from ...errors import RateLimiterBusy
from ...runtime import current
from ...stores.memcached import ClientPool, MemcachedValues, Pool, Server, client_of, lifetime_s, safe_key
from ..backend import WaitingBackend

#: For how long a change is tried, in seconds.
LONGEST_CONTENTION_S = 5.0
_LONGEST_PAUSE_S = 0.05


class MemcachedBackend(WaitingBackend):
    """A rate limiter backend for memcached. The client is pymemcache, which is Python all through.

    So only the greenlet that asks waits; pylibmc, which is C, would stop the whole process.

    When many change the same key at once, some try again for up to 5 seconds, and then raise
    RateLimiterBusy. Waiting (of barriers) looks again and again.

    Parameters:
      pool: What gives clients by ``with pool.reserve() as client``; then all other parameters are
        ignored. Default: one of our own.
      pool_size(int): The most connections to each server. Default: 8.
      servers(list): "host", "host:port", "/path/of/a/socket" or (host, port). Default: this machine.
      **parameters: For pymemcache's clients; ``binary`` is accepted and has no meaning.

    Attributes:
      pool: The pool.
    """

    def __init__(
        self,
        *,
        pool: Pool | None = None,
        pool_size: int = 8,
        servers: Server | Iterable[Server] | None = None,
        **parameters: Any,
    ) -> None:
        self.pool: Any = ClientPool(servers, pool_size, parameters) if pool is None else pool
        super().__init__(MemcachedValues(self.pool))

    def add(self, key: str, value: int, ttl: int) -> bool:
        return self._change(key, lambda now: value if now is None else None, ttl)

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        def change(value: int | None) -> int | None:
            changed = (value or 0) + amount
            return None if changed > maximum else changed

        return self._change(key, change, ttl)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        def change(value: int | None) -> int | None:
            return None if value is None or value - amount < minimum else value - amount

        return self._change(key, change, ttl)

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        if self._sum(keys()) + amount > maximum or not self.incr(key, amount, maximum, ttl):
            return False
        # Another one may have added to another key of the sum since it was looked at. It looks
        # again as well, so at least one of the two sees both and takes its own back.
        if self._sum(keys()) > maximum:
            self.decr(key, amount, 0, ttl)
            return False
        return True

    def take(self, key: str, holder: str, limit: int, ttl: int) -> bool:
        def change(holders: dict[str, int] | None) -> dict[str, int] | None:
            now = now_ms()
            left = {each: until for each, until in (holders or {}).items() if until > now}
            if holder not in left and len(left) >= limit:
                return None
            return {**left, holder: now + ttl}

        return self._change(_holders(key), change, ttl)

    def give_back(self, key: str, holder: str, ttl: int) -> None:
        def change(holders: dict[str, int] | None) -> dict[str, int] | None:
            if not holders or holder not in holders:
                return None
            return {each: until for each, until in holders.items() if each != holder}

        self._change(_holders(key), change, ttl)

    def arrive(self, key: str, member: str, parties: int, ttl: int) -> bool:
        number = 0

        def change(numbers: dict[str, int] | None) -> dict[str, int] | None:
            nonlocal number
            numbers = numbers or {}
            number = numbers.get(member, len(numbers) + 1)
            return None if member in numbers else {**numbers, member: number}

        self._change(key + "@arrived", change, ttl)
        return number == parties

    def _sum(self, keys: list[str]) -> int:
        with client_of(self.pool) as client:
            stored = client.get_many([safe_key(key) for key in keys])
        return sum(_read(data)[0] or 0 for data in stored.values())

    def _change(self, key: str, change: Callable[[Any], Any], ttl_ms: int) -> bool:
        """Replace a value by what ``change`` makes of it; False if it makes None."""
        name = safe_key(key)
        deadline = time.monotonic() + LONGEST_CONTENTION_S
        pause_s = 0.001
        while True:
            with client_of(self.pool) as client:
                stored, token = client.gets(name)
                value, until = _read(stored)
                changed = change(value)
                if changed is None:
                    return False
                # Of several holders the one with the longest lease counts.
                expires = max(now_ms() + ttl_ms, until if isinstance(changed, dict) else 0)
                # What holds nothing any more is over at once.
                data, expire = _written(changed, expires), -1 if changed == {} else lifetime_s(expires - now_ms())
                if stored is None:
                    is_written = client.add(name, data, expire=expire, noreply=False)
                else:
                    is_written = client.cas(name, data, token, expire=expire, noreply=False)
            if is_written:
                return True
            if time.monotonic() >= deadline:
                raise RateLimiterBusy(
                    f"Key {key!r} was changed by others at each try for {LONGEST_CONTENTION_S:.0f} s, so nothing was "
                    "done. Use Redis for a limit that so many ask for at once."
                )
            current().sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _read(stored: bytes | None) -> tuple[Any, int]:
    """A value, None if it is over; and when it is over."""
    if stored is None:
        return None, 0
    expires, _, data = stored.partition(b":")
    until = int(expires)
    return (json.loads(data), until) if until > now_ms() else (None, 0)


def _written(value: Any, expires: int) -> bytes:
    return b"%d:%b" % (expires, json.dumps(value, separators=(",", ":")).encode())


def _holders(key: str) -> str:
    return key + "@holders"
