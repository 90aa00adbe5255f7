"""Values in a file of SQLite. Whoever waits, in whichever process, is woken by a datagram.

A process that waits is told that something came, not what: it then looks for all the keys
that are waited for in it, in one statement. So no value is missed when a hundred come at
once and the socket holds ten datagrams.
"""

from __future__ import annotations

import json
import os
import sqlite3
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import resources
from itertools import chain
from typing import Any

from ...clock import now_ms
from ...runtime import current
from ..values import Bell, ValueStore, Watch, text
from .file import File, Layout
from .operation import Operation
from .store import Store
from .wakeup import LOOK_EVERY_S, WakeUp

#: The header says "grnv".
VALUES = Layout(
    application_id=0x67726E76,
    version=1,
    tables=frozenset({"entries", "counters", "holders"}),
    steps={0: (resources.files(__package__) / "values.sql").read_text("utf-8")},
)

#: Between two looks of one who is told, in seconds.
LOOK_SELDOM_EVERY_S = 10.0

#: Rows of one INSERT, and rows that are over which one write drops.
_ROWS_AT_ONCE = 50
_MOST_PURGED = 200
_NAME = "values"

PUT = "INSERT OR REPLACE INTO entries (key, expires, data) VALUES "
GET = "SELECT data FROM entries WHERE key = ? AND expires > ?"
DELETE = "DELETE FROM entries WHERE key = ?"
FIND = """
SELECT json_group_array(key) FROM entries WHERE key IN (SELECT value FROM json_each(?)) AND expires > ?
"""
PURGE = """
DELETE FROM entries WHERE expires <= ? AND key IN
  (SELECT key FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?)
"""


class SqliteValues(ValueStore):
    """Keeps values in a file, which is opened, and created, by the first use.

    Parameters:
      path: On a local disk.
      synchronous(str): "NORMAL" or "FULL".
    """

    def __init__(self, path: str | os.PathLike[str], synchronous: str = "NORMAL") -> None:
        if synchronous not in ("NORMAL", "FULL"):
            raise ValueError(f"synchronous is 'NORMAL' or 'FULL', not {synchronous!r}.")
        self.path = os.path.abspath(os.fspath(path))
        self._synchronous = synchronous
        self._start_over()
        _all.add(self)

    def _start_over(self) -> None:
        self._guard = current().native_lock()
        # Of its own, because the wake-up calls look() with a lock held which is also taken
        # inside the other one.
        self._looking = current().native_lock()
        self._store: Store | None = None
        self._wake_up: WakeUp | None = None
        self._is_listening = False
        self._bells: dict[str, list[Bell]] = {}
        self._waiting: AbstractContextManager[None] | None = None
        self._is_looking = False

    def do(self, operation: Operation) -> Any:
        """Run an operation on the file; return its result. May switch. Raises StorageError and ConnectionFailed."""
        return self._open().do(operation)

    def _open(self) -> Store:
        with self._guard:
            if self._store is None:
                wake_up = self._wake_up = WakeUp(self.path)
                self._store = Store(File(self.path, self._synchronous, VALUES), wake_up.notify)
            return self._store

    def put(self, key: str, data: bytes, ttl_ms: int) -> None:
        self.do(_Put(text(key), now_ms() + ttl_ms, data))

    def get(self, key: str) -> bytes | None:
        data: bytes | None = self.do(_Get(text(key)))
        return data

    def delete(self, key: str) -> None:
        self.do(_Delete(text(key)))

    def close(self) -> None:
        with self._guard:
            store, wake_up, self._store, self._wake_up = self._store, self._wake_up, None, None
            self._is_listening = False
            self._waiting = None
        if store is not None and wake_up is not None:
            store.close()
            wake_up.close()

    # -- who waits

    def watch(self, key: str, bell: Bell) -> Watch:
        self._open()
        key = text(key)
        with self._guard:
            assert self._wake_up is not None
            if not self._is_listening:
                self._is_listening = True
                self._wake_up.listen()
            self._bells.setdefault(key, []).append(bell)
            if self._waiting is None:
                self._waiting = self._wake_up.waiting(_NAME, _Bell(self))
                self._waiting.__enter__()
        return _Told(self, key, bell)

    def forget(self, key: str, bell: Bell) -> None:
        """End a watch."""
        with self._guard:
            bells = self._bells.get(key, [])
            if bell in bells:
                bells.remove(bell)
            if not bells:
                self._bells.pop(key, None)
            if not self._bells and self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                waiting.__exit__(None, None, None)

    def pause_s(self) -> float:
        """Seconds between two looks of one who waits."""
        wake_up = self._wake_up
        look_every_s = LOOK_EVERY_S if wake_up is None else wake_up.look_every_s
        return look_every_s if look_every_s < LOOK_EVERY_S else LOOK_SELDOM_EVERY_S

    def look(self) -> None:
        """Have the store look for all keys that are waited for. Called in native threads; does not wait."""
        store = self._store
        with self._looking:
            if store is None or self._is_looking:
                return
            self._is_looking = True
        store.post(_Find(self))

    def keys_to_look_for(self) -> list[str]:
        self.look_again()
        with self._guard:
            return list(self._bells)

    def look_again(self) -> None:
        """From here on what comes needs another look."""
        self._is_looking = False

    def ring(self, keys: list[str]) -> None:
        with self._guard:
            bells = [bell for key in keys for bell in self._bells.get(key, ())]
        for bell in bells:
            bell()

    # -- forks

    def _forget_in_child(self) -> None:
        store, wake_up = self._store, self._wake_up
        self._start_over()
        if store is not None and wake_up is not None:
            _left_to_the_parent.append((store, wake_up))
            store.forget()
            wake_up.forget()


class _Told(Watch):
    def __init__(self, values: SqliteValues, key: str, bell: Bell) -> None:
        super().__init__(values, key)
        self._values = values
        self._bell = bell

    def pause_s(self) -> float:
        return self._values.pause_s()

    def close(self) -> None:
        self._values.forget(self._key, self._bell)


class _Bell:
    """What the wake-up sets: an event, but for all who wait in this process."""

    def __init__(self, values: SqliteValues) -> None:
        self._values = values

    def set(self) -> None:
        self._values.look()

    def clear(self) -> None: ...

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        raise NotImplementedError


# -- operations


class _Put(Operation):
    __slots__ = ("row",)

    filled = (_NAME,)

    def __init__(self, key: str, expires: int, data: bytes) -> None:
        super().__init__()
        self.row = (key, expires, data)

    @classmethod
    def run_together(cls, connection: sqlite3.Connection, operations: Sequence[_Put]) -> None:
        for start in range(0, len(operations), _ROWS_AT_ONCE):
            rows = [operation.row for operation in operations[start : start + _ROWS_AT_ONCE]]
            connection.execute(PUT + ", ".join(["(?, ?, ?)"] * len(rows)), list(chain.from_iterable(rows)))
        now = now_ms()
        connection.execute(PURGE, (now, now, _MOST_PURGED + 2 * len(operations)))


class _Get(Operation):
    __slots__ = ("_key",)

    writes = False

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def run(self, connection: sqlite3.Connection) -> bytes | None:
        row = connection.execute(GET, (self._key, now_ms())).fetchone()
        return None if row is None else bytes(row[0])


class _Delete(Operation):
    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute(DELETE, (self._key,))


class _Find(Operation):
    """Ring for the keys that are there. Nobody waits for it."""

    __slots__ = ("_found", "_values")

    writes = False
    rank = 2

    def __init__(self, values: SqliteValues) -> None:
        super().__init__()
        self._values = values
        self._found: list[str] = []

    def run(self, connection: sqlite3.Connection) -> None:
        self._found = []
        keys = json.dumps(self._values.keys_to_look_for())
        self._found = json.loads(connection.execute(FIND, (keys, now_ms())).fetchone()[0])

    def ended(self) -> None:
        self._values.look_again()
        self._values.ring(self._found)


_all: weakref.WeakSet[SqliteValues] = weakref.WeakSet()
# A child never uses its parent's connection, nor closes it: SQLite would drop or break locks.
_left_to_the_parent: list[Any] = []


def _forget_in_child() -> None:
    for values in list(_all):
        values._forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)
