"""Counts in memory, for tests: for one process."""

from __future__ import annotations

from collections.abc import Callable

from ...clock import now_ms
from ...runtime import current
from ...stores.stub import StubValues
from ..backend import WaitingBackend

_PURGE_EVERY_MS = 1000


class StubBackend(WaitingBackend):
    """An in-memory rate limiter backend. For use in unit tests."""

    def __init__(self) -> None:
        super().__init__(StubValues())
        self._guard = current().native_lock()
        self._counters: dict[str, tuple[int, int]] = {}
        self._purge_at = 0
        self._holders: dict[str, dict[str, int]] = {}
        self._arrived: dict[str, tuple[dict[str, int], int]] = {}
        self._purge_arrived_at = 0

    def add(self, key: str, value: int, ttl: int) -> bool:
        with self._guard:
            if self._get(key) is not None:
                return False
            self._set(key, value, ttl)
            return True

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        with self._guard:
            value = (self._get(key) or 0) + amount
            if value > maximum:
                return False
            self._set(key, value, ttl)
            return True

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        with self._guard:
            value = self._get(key)
            if value is None or value - amount < minimum:
                return False
            self._set(key, value - amount, ttl)
            return True

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        with self._guard:
            value = (self._get(key) or 0) + amount
            if value > maximum or sum(self._get(each) or 0 for each in keys()) + amount > maximum:
                return False
            self._set(key, value, ttl)
            return True

    def take(self, key: str, holder: str, limit: int, ttl: int) -> bool:
        now = now_ms()
        with self._guard:
            holders = {each: until for each, until in self._holders.get(key, {}).items() if until > now}
            if holder not in holders and len(holders) >= limit:
                return False
            self._holders[key] = {**holders, holder: now + ttl}
            return True

    def give_back(self, key: str, holder: str, ttl: int) -> None:
        with self._guard:
            holders = self._holders.get(key, {})
            holders.pop(holder, None)
            if not holders:
                self._holders.pop(key, None)

    def arrive(self, key: str, member: str, parties: int, ttl: int) -> bool:
        now = now_ms()
        with self._guard:
            if now >= self._purge_arrived_at:
                self._purge_arrived_at = now + _PURGE_EVERY_MS
                self._arrived = {each: kept for each, kept in self._arrived.items() if kept[1] > now}
            numbers, expires = self._arrived.get(key, ({}, 0))
            if expires <= now:
                numbers = {}
            if member not in numbers:
                numbers[member] = len(numbers) + 1
                self._arrived[key] = (numbers, now + ttl)
            return numbers[member] == parties

    def _get(self, key: str) -> int | None:
        value, expires = self._counters.get(key, (0, 0))
        return value if expires > now_ms() else None

    def _set(self, key: str, value: int, ttl: int) -> None:
        now = now_ms()
        if now >= self._purge_at:
            self._purge_at = now + _PURGE_EVERY_MS
            for expired in [each for each, (_, expires) in self._counters.items() if expires <= now]:
                del self._counters[expired]
        self._counters[key] = (value, now + ttl)
