"""Counts in a file of SQLite: every change is one transaction, in which many have room."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ...clock import now_ms
from ...stores.sqlite.operation import Operation
from ...stores.sqlite.values import SqliteValues
from ...stores.values import text
from ..backend import WaitingBackend

SUM = """
SELECT coalesce(sum(value), 0) FROM counters WHERE key IN (SELECT value FROM json_each(?)) AND expires > ?
"""
SET = "INSERT OR REPLACE INTO counters (key, value, expires) VALUES (?, ?, ?)"
GET_ONE = "SELECT value FROM counters WHERE key = ? AND expires > ?"
PURGE_COUNTERS = """
DELETE FROM counters WHERE key IN (SELECT key FROM counters WHERE expires <= ? ORDER BY expires LIMIT ?)
"""
HELD = "SELECT count(*), coalesce(max(holder = ?), 0) FROM holders WHERE key = ? AND expires > ?"
TAKE = "INSERT OR REPLACE INTO holders (key, holder, expires) VALUES (?, ?, ?)"
GIVE_BACK = "DELETE FROM holders WHERE key = ? AND holder = ?"
PURGE_HOLDERS = "DELETE FROM holders WHERE key = ? AND expires <= ?"
HAS_ARRIVED = "SELECT 1 FROM holders WHERE key = ? AND holder = ?"
FORGET_ARRIVED = "DELETE FROM holders WHERE key = ?"
PURGE_ARRIVED = """
DELETE FROM holders WHERE (key, holder) IN (
  SELECT key, holder FROM holders WHERE expires <= ?
    AND NOT EXISTS (SELECT 1 FROM counters WHERE counters.key = holders.key AND counters.expires > ?)
  ORDER BY expires LIMIT ?)
"""

#: Counters that are over which one change drops.
_MOST_PURGED = 4


class SqliteBackend(WaitingBackend):
    """A rate limiter backend in a file, for the processes of one machine; there is nothing to install.

    Parameters:
      path(str): The file, on a local disk; made if it does not exist. A result backend may have
        the same one; a broker has its own. Default: greenq-store.db in the current directory.
      synchronous(str): "NORMAL" or "FULL", as of SqliteBroker. Default: "NORMAL".
    """

    def __init__(
        self, path: str | os.PathLike[str] = "greenq-store.db", *, synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    ) -> None:
        self._file = SqliteValues(path, synchronous)
        super().__init__(self._file)

    @property
    def path(self) -> str:
        """The file, with its absolute path."""
        return self._file.path

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
        def change(value: int | None, others: int) -> int | None:
            changed = (value or 0) + amount
            return None if changed > maximum or others + amount > maximum else changed

        return bool(self._file.do(_ChangeBySum(text(key), change, [text(each) for each in keys()], ttl)))

    def take(self, key: str, holder: str, limit: int, ttl: int) -> bool:
        return bool(self._file.do(_Take(text(key), holder, limit, ttl)))

    def give_back(self, key: str, holder: str, ttl: int) -> None:
        self._file.do(_GiveBack(text(key), holder))

    def arrive(self, key: str, member: str, parties: int, ttl: int) -> bool:
        return bool(self._file.do(_Arrive(text(key) + "@arrived", text(member), parties, ttl)))

    def _change(self, key: str, change: Callable[[int | None], int | None], ttl_ms: int) -> bool:
        return bool(self._file.do(_Change(text(key), change, ttl_ms)))


class _Change(Operation):
    """Replace a counter by what ``change`` makes of it, unless that is None. Its result: whether it was changed."""

    __slots__ = ("_change", "_key", "_ttl_ms")

    def __init__(self, key: str, change: Callable[..., int | None], ttl_ms: int) -> None:
        super().__init__()
        self._key = key
        self._change = change
        self._ttl_ms = ttl_ms

    def run(self, connection: sqlite3.Connection) -> bool:
        now = now_ms()
        row = connection.execute(GET_ONE, (self._key, now)).fetchone()
        changed = self._changed(connection, None if row is None else row[0], now)
        if changed is None:
            return False
        connection.execute(SET, (self._key, changed, now + self._ttl_ms))
        return True

    def _changed(self, connection: sqlite3.Connection, value: int | None, now: int) -> int | None:
        return self._change(value)

    @classmethod
    def run_together(cls, connection: sqlite3.Connection, operations: Sequence[Any]) -> None:
        super().run_together(connection, operations)
        connection.execute(PURGE_COUNTERS, (now_ms(), _MOST_PURGED * len(operations)))


class _ChangeBySum(_Change):
    """The same by a sum of counters as well."""

    __slots__ = ("_keys",)

    def __init__(self, key: str, change: Callable[..., int | None], keys: list[str], ttl_ms: int) -> None:
        super().__init__(key, change, ttl_ms)
        self._keys = keys

    def _changed(self, connection: sqlite3.Connection, value: int | None, now: int) -> int | None:
        (others,) = connection.execute(SUM, (json.dumps(self._keys), now)).fetchone()
        return self._change(value, others)


class _Take(Operation):
    """Take a slot. Its result: whether there was one."""

    __slots__ = ("_holder", "_key", "_limit", "_ttl_ms")

    def __init__(self, key: str, holder: str, limit: int, ttl_ms: int) -> None:
        super().__init__()
        self._key = key
        self._holder = holder
        self._limit = limit
        self._ttl_ms = ttl_ms

    def run(self, connection: sqlite3.Connection) -> bool:
        now = now_ms()
        count, is_mine = connection.execute(HELD, (self._holder, self._key, now)).fetchone()
        if count >= self._limit and not is_mine:
            return False
        connection.execute(PURGE_HOLDERS, (self._key, now))
        connection.execute(TAKE, (self._key, self._holder, now + self._ttl_ms))
        return True


class _GiveBack(Operation):
    __slots__ = ("_holder", "_key")

    def __init__(self, key: str, holder: str) -> None:
        super().__init__()
        self._key = key
        self._holder = holder

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute(GIVE_BACK, (self._key, self._holder))


class _Arrive(Operation):
    """Note an arrival. Its result: whether this member was the last of them.

    How many have arrived is a counter; who has, and who was the last, are rows beside it, which are
    good for as long as the counter is.
    """

    __slots__ = ("_key", "_member", "_parties", "_ttl_ms")

    def __init__(self, key: str, member: str, parties: int, ttl_ms: int) -> None:
        super().__init__()
        self._key = key
        self._member = member
        self._parties = parties
        self._ttl_ms = ttl_ms

    def run(self, connection: sqlite3.Connection) -> bool:
        now = now_ms()
        last = self._key + "@last"
        row = connection.execute(GET_ONE, (self._key, now)).fetchone()
        if row is None:
            for key in (self._key, last):
                connection.execute(FORGET_ARRIVED, (key,))
        elif connection.execute(HAS_ARRIVED, (self._key, self._member)).fetchone():
            return connection.execute(HAS_ARRIVED, (last, self._member)).fetchone() is not None
        count = 1 if row is None else row[0] + 1
        expires = now + self._ttl_ms
        connection.execute(SET, (self._key, count, expires))
        connection.execute(TAKE, (self._key, self._member, expires))
        if count == self._parties:
            # With the counter's key of its own, by which it is purged.
            connection.execute(SET, (last, 1, expires))
            connection.execute(TAKE, (last, self._member, expires))
        return count == self._parties

    @classmethod
    def run_together(cls, connection: sqlite3.Connection, operations: Sequence[Any]) -> None:
        super().run_together(connection, operations)
        now, most = now_ms(), _MOST_PURGED * len(operations)
        connection.execute(PURGE_COUNTERS, (now, most))
        connection.execute(PURGE_ARRIVED, (now, now, most))
