"""The worker id under which this process holds messages, and its lease.

The lease is renewed, and those of the dead are taken back, by a native thread that opens a
connection of its own each time: it never waits for the store, nor the store for it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from ...clock import now_ms
from ...lease import LeaseKeeper
from ...runtime import current
from ...stores.sqlite.contention import while_locked
from ...stores.sqlite.file import File
from .operations import PURGE_DEAD_LETTERS, RENEW, TAKE_BACK_EXPIRED, UNREGISTER_EXPIRED, register

R = TypeVar("R")

#: How many dead letters one transaction drops, at most.
_PURGED_AT_ONCE = 1000


class Membership:
    """This process among those that consume.

    Parameters:
      file(File): Opened before by the store.
      lease_ms(int): The length of a lease.
      dead_message_ttl_ms(int): Dead letters older than this are dropped.

    Attributes:
      value(int | None): The worker id; None before the first one.
      lease_ms(int): The length of a lease.
    """

    def __init__(self, file: File, lease_ms: int, dead_message_ttl_ms: int) -> None:
        self._file = file
        self.lease_ms = lease_ms
        self._dead_message_ttl_ms = dead_message_ttl_ms
        self._guard = current().native_lock()
        self._keeper: LeaseKeeper | None = None
        self._is_left = False
        self._lost: list[int] = []
        self.value: int | None = None

    def replace(self, worker_id: int) -> None:
        """Go on under a new id. Called in native threads."""
        with self._guard:
            if self.value is not None:
                self._lost.append(self.value)
            self.value = worker_id

    def take_losses(self) -> list[int]:
        """The ids that were lost since this was last asked."""
        if not self._lost:
            return []
        with self._guard:
            lost, self._lost = self._lost, []
        return lost

    def keep(self) -> None:
        """Begin to renew the lease; to be called once."""
        self._keeper = LeaseKeeper(self.lease_ms, self._renew, self._take_back_expired)

    def leave(self) -> None:
        """Stop renewing it."""
        self._is_left = True
        if self._keeper is not None:
            self._keeper.stop()

    # -- in the keeper's native thread

    def _renew(self) -> None:
        old = self.value
        if self._is_left or old is None:
            return

        def renew(connection: sqlite3.Connection) -> int | None:
            # A row that is gone was given up, or taken away. This is in a transaction, and so
            # is giving it up, which is only begun once _is_left is set.
            if connection.execute(RENEW, (now_ms() + self.lease_ms, old)).rowcount or self._is_left:
                return None
            return register(connection, self.lease_ms)

        new = self._transact(renew)
        if new is not None:
            self._replace_if_still(old, new)

    def _replace_if_still(self, old: int, new: int) -> None:
        # A claim may have found the loss at the same time. The id under which it has
        # reserved messages is the one to keep; the other's lease runs out unused.
        with self._guard:
            if self.value == old:
                self._lost.append(old)
                self.value = new

    def _take_back_expired(self) -> None:
        def take_back(connection: sqlite3.Connection) -> None:
            now = now_ms()
            connection.execute(TAKE_BACK_EXPIRED, (now,))
            connection.execute(UNREGISTER_EXPIRED, (now,))

        if not self._is_left:
            self._transact(take_back)
            self._purge()

    def _purge(self) -> None:
        # What is left after that has its turn at the next renewal, which must not be late.
        deadline = time.monotonic() + self.lease_ms / 6000
        before = now_ms() - self._dead_message_ttl_ms

        def purge(connection: sqlite3.Connection) -> int:
            return connection.execute(PURGE_DEAD_LETTERS, (before, _PURGED_AT_ONCE)).rowcount

        while not self._is_left and self._transact(purge) == _PURGED_AT_ONCE and time.monotonic() < deadline:
            pass

    def _transact(self, run: Callable[[sqlite3.Connection], R]) -> R:
        connection = self._file.open()

        def attempt() -> R:
            connection.execute("BEGIN IMMEDIATE")
            try:
                answer = run(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return answer

        try:
            # Shorter than the lease: a renewal that is late is no renewal.
            return while_locked(self._file.path, self._file.inside, attempt, longest_wait_s=self.lease_ms / 3000)
        finally:
            self._file.close(connection)
