"""What is done to the file, one class for one operation, with its SQL.

An operation may run twice: see stores/sqlite/operation.py.

Every row that a statement answers makes sqlite3 let go of the interpreter's lock once, and
beside a busy hub each time costs up to 5 ms until it has it again: answering 500 rows took
156 ms, as one aggregated row 36 ms. So no statement here answers, or inserts, row by row.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from ...clock import now_ms
from ...inspection import QueueCounts
from ...message import MAX_MESSAGE_BYTES
from ...stores.sqlite.operation import Again, Operation
from ...verdict import Envelope

READY, DELAYED = 0, 1

#: Delayed messages made ready before one claim. The others have their turn at the next.
MOST_PROMOTED = 1000

#: Rows of one INSERT. More are not quicker, and SQLite limits a statement's parameters.
ROWS_AT_ONCE = 50

INSERT_MESSAGES = "INSERT INTO messages (queue, priority, due, state, message_id, payload) VALUES "
MESSAGE_VALUES = "(?, ?, ?, ?, ?, ?)"

# Of a payload that is too long to be a message only enough to see that.
# Aggregated: ids, lengths and deliveries as JSON, the most deliveries, the payloads one behind the other.
CLAIM = """
SELECT json_group_array(id), json_group_array(length(payload)), json_group_array(deliveries),
  max(deliveries), CAST(group_concat(payload, '') AS BLOB),
  (SELECT min(due) FROM messages WHERE state = 1 AND queue = :queue),
  (SELECT lease_until FROM workers WHERE id = :worker)
FROM (
  SELECT id, deliveries, CASE WHEN length(payload) > :most THEN substr(payload, 1, :most) ELSE payload END AS payload
  FROM messages WHERE state = 0 AND queue = :queue
  ORDER BY priority, due, id LIMIT :count
)
"""
EVIDENCE = """
SELECT json_group_array(json_array(id, charges, unwitnessed, coalesce(cause, ''))) FROM messages
WHERE (charges OR unwitnessed) AND id IN (SELECT value FROM json_each(?))
"""
RESERVE = "UPDATE messages SET state = 2, holder = ? WHERE id IN (SELECT value FROM json_each(?))"
PROMOTE = """
UPDATE messages SET state = 0 WHERE id IN (
  SELECT id FROM messages WHERE state = 1 AND queue = ? AND due <= ? ORDER BY due, id LIMIT ?)
"""
PEEK = """
SELECT EXISTS (SELECT 1 FROM messages WHERE state = 0 AND queue = :queue),
  (SELECT min(due) FROM messages WHERE state = 1 AND queue = :queue)
"""

REMOVE = "DELETE FROM messages WHERE holder = ? AND id IN (SELECT value FROM json_each(?))"
RETURN = """
UPDATE messages SET state = 0, holder = NULL WHERE holder = ? AND id IN (SELECT value FROM json_each(?))
"""
HELD = "SELECT json_group_array(id) FROM messages WHERE holder = ? AND id IN (SELECT value FROM json_each(?))"
BURY = """
INSERT INTO dead_letters (queue, priority, died_at, reason, deliveries, message_id, payload)
SELECT queue, priority, ?, ?, deliveries, message_id, coalesce(?, payload) FROM messages WHERE holder = ? AND id = ?
"""

REGISTER = "INSERT INTO workers (pid, host, lease_until) VALUES (?, ?, ?)"
RENEW = "UPDATE workers SET lease_until = ? WHERE id = ?"
UNREGISTER = "DELETE FROM workers WHERE id = ?"
RETURN_ALL = "UPDATE messages SET state = 0, holder = NULL WHERE state = 2 AND holder = ?"
CHARGE = """
UPDATE messages SET charges = charges + 1, cause = ?
WHERE state = 2 AND holder = ? AND message_id IN (SELECT value FROM json_each(?))
"""
TAKE_BACK = """
UPDATE messages SET state = 0, holder = NULL, deliveries = deliveries + 1, unwitnessed = unwitnessed + ?
WHERE state = 2 AND holder = ?
"""
# By those who live, not by those who are known to be dead: also of a worker without a row.
TAKE_BACK_EXPIRED = """
UPDATE messages SET state = 0, holder = NULL, deliveries = deliveries + 1, unwitnessed = unwitnessed + 1
WHERE state = 2 AND holder NOT IN (SELECT id FROM workers WHERE lease_until >= ?)
"""
UNREGISTER_EXPIRED = "DELETE FROM workers WHERE lease_until < ?"
# A bounded number, so that a million that died together do not keep the file locked.
PURGE_DEAD_LETTERS = """
DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE died_at < ? ORDER BY died_at LIMIT ?)
"""

FLUSH_MESSAGES = "DELETE FROM messages WHERE queue = ? AND state <> 2"
FLUSH_RESERVED = "DELETE FROM messages WHERE queue = ? AND state = 2 AND holder = ?"
FLUSH_DEAD_LETTERS = "DELETE FROM dead_letters WHERE queue = ?"
COUNT = """
SELECT (SELECT count(*) FROM messages WHERE state = 0 AND queue = :queue),
  (SELECT count(*) FROM messages WHERE state = 2 AND queue = :queue),
  (SELECT count(*) FROM messages WHERE state = 1 AND queue = :queue),
  coalesce((SELECT letters FROM dead_letter_counts WHERE queue = :queue), 0)
"""

# By the indexes: one step for each priority in use, however many messages there are.
OLDEST = """
WITH RECURSIVE priorities (priority) AS (
  SELECT min(priority) FROM messages WHERE state = 0 AND queue = :queue
  UNION ALL
  SELECT (SELECT min(priority) FROM messages WHERE state = 0 AND queue = :queue AND priority > before.priority)
  FROM priorities AS before WHERE before.priority IS NOT NULL
)
SELECT min(since) FROM (
  SELECT (SELECT min(due) FROM messages WHERE state = 0 AND queue = :queue AND priority = each.priority) AS since
  FROM priorities AS each
  UNION ALL
  SELECT min(due) FROM messages WHERE state = 1 AND queue = :queue AND due <= :now
)
"""

_LARGEST_INTEGER = 2**63 - 1


class Row(NamedTuple):
    """A message as it is inserted."""

    queue: str
    priority: int
    due: int
    state: int
    message_id: str
    payload: bytes


def row(envelope: Envelope) -> Row:
    """The row for a message: one that SQLite accepts, whatever a foreign producer wrote into its fields."""
    message, payload, queue, priority, _, due_ms = envelope
    if not -_LARGEST_INTEGER <= priority <= _LARGEST_INTEGER:
        priority = _LARGEST_INTEGER if priority > 0 else -_LARGEST_INTEGER
    now = now_ms()
    if due_ms is None:
        return Row(text(queue), priority, now, READY, text(message.message_id), payload)
    # An eta in the past still counts for its place among equals.
    state = READY if due_ms <= now else DELAYED
    return Row(text(queue), priority, due_ms, state, text(message.message_id), payload)


def text(value: str) -> str:
    """The text without half characters, which JSON allows and SQLite does not."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


class WorkerId(Protocol):
    """The id under which this process holds messages; it can change at any time."""

    value: int | None

    def replace(self, worker_id: int) -> None: ...


class Write(Operation):
    """Store messages."""

    __slots__ = ("filled", "rows")

    def __init__(self, rows: list[Row]) -> None:
        super().__init__()
        self.rows = rows
        self.filled = (rows[0].queue,) if len(rows) == 1 else tuple({row.queue for row in rows})

    def run(self, connection: sqlite3.Connection) -> None:
        insert(connection, self.rows)

    @classmethod
    def run_together(cls, connection: sqlite3.Connection, operations: Sequence[Any]) -> None:
        insert(connection, [row for operation in operations for row in operation.rows])

    @classmethod
    def are_one_statement(cls, operations: Sequence[Any]) -> bool:
        return sum(len(operation.rows) for operation in operations) <= ROWS_AT_ONCE


def insert(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """Insert these rows, in as few statements as it can."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        chunk = rows[start : start + ROWS_AT_ONCE]
        statement = INSERT_MESSAGES + ", ".join([MESSAGE_VALUES] * len(chunk))
        connection.execute(statement, list(chain.from_iterable(chunk)))


class Claim(Operation):
    """Reserve the first messages of a queue.

    Its result: (worker id, ids, lengths, deliveries, evidence, payloads one behind the other).
    """

    __slots__ = ("_count", "_lease_ms", "_new_worker_id", "_queue", "_worker")

    rank = 2

    def __init__(self, queue: str, count: int, worker: WorkerId, lease_ms: int) -> None:
        super().__init__()
        self._queue = queue
        self._count = count
        self._worker = worker
        self._lease_ms = lease_ms
        self._new_worker_id: int | None = None

    def run(self, connection: sqlite3.Connection) -> tuple[int | None, str, str, str, str, bytes | None]:
        self._new_worker_id = None
        worker_id = self._worker.value
        parameters = {"queue": self._queue, "worker": worker_id, "count": self._count, "most": MAX_MESSAGE_BYTES + 1}
        *claimed, next_due, lease_until = connection.execute(CLAIM, parameters).fetchone()
        now = now_ms()
        if next_due is not None and next_due <= now:
            connection.execute(PROMOTE, (self._queue, now, MOST_PROMOTED))
            *claimed, next_due, lease_until = connection.execute(CLAIM, parameters).fetchone()
        ids, lengths, deliveries, most_deliveries, payloads = claimed
        # There is none against what was never taken back, and nearly nothing ever is.
        evidence = connection.execute(EVIDENCE, (ids,)).fetchone()[0] if most_deliveries else "[]"
        if ids != "[]":
            if lease_until is None:
                # The lease was lost, and what is reserved under the old id would be nobody's.
                worker_id = self._new_worker_id = register(connection, self._lease_ms)
            elif lease_until < now:
                # It has run out and nobody noticed yet: this process was stopped. Others could
                # take back what is reserved now before the keeper has had its turn.
                connection.execute(RENEW, (now + self._lease_ms, worker_id))
            connection.execute(RESERVE, (worker_id, ids))
        return worker_id, ids, lengths, deliveries, evidence, payloads

    def committed(self) -> None:
        if self._new_worker_id is not None:
            self._worker.replace(self._new_worker_id)


class Peek(Operation):
    """Look whether a queue has something ready. Its result: (it has, when the next delayed one is due)."""

    __slots__ = ("_queue",)

    writes = False

    def __init__(self, queue: str) -> None:
        super().__init__()
        self._queue = queue

    def run(self, connection: sqlite3.Connection) -> tuple[bool, int | None]:
        is_ready, next_due = connection.execute(PEEK, {"queue": self._queue}).fetchone()
        return bool(is_ready), next_due


class Settle(Operation):
    """Write what became of messages that one worker id holds. Its result: the ids it does not hold.

    Parameters:
      worker_id(int): Under which they were fetched.
      removed(list[int]): Acknowledged, or dead.
      returned(list[int]): They go back to their places.
      dead(list): For each one of ``removed`` that is dead, (id, reason, new payload or None).
      follow_ups(dict): For those of ``removed`` that have any, id to rows.
      queue(str): Where they are from.
    """

    __slots__ = ("_dead", "_follow_ups", "_is_careful", "_removed", "_returned", "_worker_id", "filled")

    rank = 0

    def __init__(
        self,
        worker_id: int,
        removed: list[int],
        returned: list[int],
        dead: list[tuple[int, str | None, bytes | None]],
        follow_ups: dict[int, list[Row]],
        queue: str,
    ) -> None:
        super().__init__()
        self._worker_id = worker_id
        self._removed = removed
        self._returned = returned
        self._dead = dead
        self._follow_ups = follow_ups
        self._is_careful = False
        filled = {row.queue for rows in follow_ups.values() for row in rows} if follow_ups else set()
        if returned:
            filled.add(queue)
        self.filled = tuple(filled)

    def run(self, connection: sqlite3.Connection) -> set[int]:
        """Nearly always all of them are held. If not, nothing is done, and which are is asked first."""
        refused: set[int] = set()
        removed, returned, dead, follow_ups = self._removed, self._returned, self._dead, self._follow_ups
        if self._is_careful:
            mine = self._held(connection, removed + returned)
            refused = {*removed, *returned} - mine
            removed = [each for each in removed if each in mine]
            returned = [each for each in returned if each in mine]
            dead = [each for each in dead if each[0] in mine]
            follow_ups = {each: rows for each, rows in follow_ups.items() if each in mine}
        now = now_ms()
        for message_id, reason, payload in dead:
            connection.execute(BURY, (now, reason, payload, self._worker_id, message_id))
        if removed:
            self._change(connection, REMOVE, removed)
        if returned:
            self._change(connection, RETURN, returned)
        if follow_ups:
            insert(connection, list(chain.from_iterable(follow_ups.values())))
        return refused

    def _change(self, connection: sqlite3.Connection, statement: str, ids: list[int]) -> None:
        if connection.execute(statement, (self._worker_id, _json(ids))).rowcount != len(ids):
            self._is_careful = True
            raise Again

    def _held(self, connection: sqlite3.Connection, ids: list[int]) -> set[int]:
        (held,) = connection.execute(HELD, (self._worker_id, _json(ids))).fetchone()
        return set(json.loads(held))


def _json(ids: list[int]) -> str:
    return "[" + ",".join(map(str, ids)) + "]"


# -- workers


def register(connection: sqlite3.Connection, lease_ms: int) -> int:
    """Give this process a new worker id, with a lease that starts now."""
    worker_id = connection.execute(REGISTER, (os.getpid(), socket.gethostname(), now_ms() + lease_ms)).lastrowid
    assert worker_id is not None
    return worker_id


class Register(Operation):
    """Give this process its first worker id."""

    __slots__ = ("_lease_ms", "_worker")

    def __init__(self, worker: WorkerId, lease_ms: int) -> None:
        super().__init__()
        self._worker = worker
        self._lease_ms = lease_ms

    def run(self, connection: sqlite3.Connection) -> int:
        return register(connection, self._lease_ms)

    def committed(self) -> None:
        # Of two consumers that begin at the same time only one is needed; the other id is
        # forgotten, and its lease runs out unused.
        if self._worker.value is None:
            self._worker.replace(self.result)


class Leave(Operation):
    """Return what this process still holds, uncharged, and give up its worker id."""

    __slots__ = ("_worker_id",)

    def __init__(self, worker_id: int) -> None:
        super().__init__()
        self._worker_id = worker_id

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute(RETURN_ALL, (self._worker_id,))
        connection.execute(UNREGISTER, (self._worker_id,))


class TakeBack(Operation):
    """Return what a dead worker holds. Its result: how many messages.

    Parameters:
      worker_id(int): The worker's.
      charged(list[str]): Ids of the messages that there is evidence against; without any, all are noted as lost
        unwitnessed.
      cause(str): How it died.
    """

    __slots__ = ("_cause", "_charged", "_worker_id")

    def __init__(self, worker_id: int, charged: list[str], cause: str) -> None:
        super().__init__()
        self._worker_id = worker_id
        self._charged = charged
        self._cause = cause

    def run(self, connection: sqlite3.Connection) -> int:
        if self._charged:
            connection.execute(CHARGE, (self._cause, self._worker_id, json.dumps(self._charged)))
        taken = connection.execute(TAKE_BACK, (0 if self._charged else 1, self._worker_id)).rowcount
        connection.execute(UNREGISTER, (self._worker_id,))
        return taken


# -- for tests and operators


class Flush(Operation):
    """Drop all messages of a queue, but for those that other workers are running."""

    __slots__ = ("_queue", "_worker_id")

    def __init__(self, queue: str, worker_id: int | None) -> None:
        super().__init__()
        self._queue = queue
        self._worker_id = worker_id

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute(FLUSH_MESSAGES, (self._queue,))
        connection.execute(FLUSH_RESERVED, (self._queue, self._worker_id))
        connection.execute(FLUSH_DEAD_LETTERS, (self._queue,))


class Count(Operation):
    """Count a queue's messages. Its result: QueueCounts."""

    __slots__ = ("_queue",)

    writes = False

    def __init__(self, queue: str) -> None:
        super().__init__()
        self._queue = queue

    def run(self, connection: sqlite3.Connection) -> QueueCounts:
        return QueueCounts(*connection.execute(COUNT, {"queue": self._queue}).fetchone())


class Oldest(Operation):
    """Look since when the first ready message of a queue waits. Its result: milliseconds, 0 if none does."""

    __slots__ = ("_queue",)

    writes = False

    def __init__(self, queue: str) -> None:
        super().__init__()
        self._queue = queue

    def run(self, connection: sqlite3.Connection) -> int:
        now = now_ms()
        (since,) = connection.execute(OLDEST, {"queue": self._queue, "now": now}).fetchone()
        return 0 if since is None else max(0, now - since)
