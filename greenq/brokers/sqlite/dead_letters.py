"""The dead letters of one queue of the file: operations of the store's, and who asks for them."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from ...clock import now_ms
from ...inspection import PAGE_BYTES, DeadLetter, IndexedDeadLetters, Page, not_a_cursor
from ...message import MAX_MESSAGE_BYTES
from ...stores.sqlite.operation import Operation
from .operations import READY, Row, insert

if TYPE_CHECKING:
    from .broker import SqliteBroker

# Aggregated, as everything here (see operations.py): the letters as JSON, payloads one behind
# the other, and whether more are left. What is too long is not read; a page ends after so many bytes.
LOOK = """
SELECT json_group_array(json_array(id, died_at, reason, deliveries, size)),
  CAST(group_concat(payload, '') AS BLOB), (SELECT count(*) FROM chosen)
FROM (
  SELECT id, died_at, reason, deliveries, length(payload) AS size,
    CASE WHEN length(payload) > :longest THEN x'' ELSE payload END AS payload,
    sum(CASE WHEN length(payload) > :longest THEN 0 ELSE length(payload) END) OVER reading AS total,
    row_number() OVER reading AS number
  FROM chosen JOIN dead_letters USING (id)
  WINDOW reading AS (ORDER BY id {order} ROWS UNBOUNDED PRECEDING)
  ORDER BY id {order}
)
WHERE number = 1 OR total <= :budget
"""
# One more than asked for tells whether the page is the last; it is not shown.
OLDEST_PAGE = (
    "WITH chosen AS MATERIALIZED (SELECT id FROM dead_letters WHERE queue = :queue AND id > :after AND id <= :until "
    "ORDER BY id LIMIT :limit)" + LOOK.format(order="ASC")
)
NEWEST_PAGE = (
    "WITH chosen AS MATERIALIZED (SELECT id FROM dead_letters WHERE queue = :queue AND id < :after AND id <= :until "
    "ORDER BY id DESC LIMIT :limit)" + LOOK.format(order="DESC")
)
FIND = (
    "WITH chosen AS MATERIALIZED (SELECT id FROM dead_letters WHERE queue = :queue "
    "AND id IN (SELECT value FROM json_each(:ids)))" + LOOK.format(order="ASC")
)
NEWEST = "SELECT max(id) FROM dead_letters WHERE queue = ?"
PLACES = """
SELECT json_group_array(json_array(id, priority, message_id)) FROM dead_letters
WHERE queue = ? AND id IN (SELECT value FROM json_each(?))
"""
SEND_BACK = """
INSERT INTO messages (queue, priority, due, state, message_id, payload)
SELECT queue, priority, ?, 0, message_id, payload FROM dead_letters
WHERE queue = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
DELETE = "DELETE FROM dead_letters WHERE queue = ? AND id IN (SELECT value FROM json_each(?))"
DELETE_OLDEST = """
DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE queue = ? AND id <= ? ORDER BY id LIMIT ?)
"""

_LARGEST_ID = 2**63 - 1


class SqliteDeadLetters(IndexedDeadLetters):
    """See DeadLetters.

    Parameters:
      broker(SqliteBroker): Whose file it is.
      queue_name(str): The queue.
    """

    def __init__(self, broker: SqliteBroker, queue_name: str) -> None:
        super().__init__(queue_name)
        self._broker = broker

    def count(self) -> int:
        return self._broker.queue_counts(self.queue_name).dead

    def _page(self, after: str | None, limit: int, oldest_first: bool, until: str | None = None) -> Page:
        place = (0 if oldest_first else _LARGEST_ID) if after is None else _row_id(after)
        if place is None:
            raise not_a_cursor(after or "")
        until_id = _LARGEST_ID if until is None else int(until)
        statement = OLDEST_PAGE if oldest_first else NEWEST_PAGE
        parameters = {"after": place, "until": until_id, "limit": limit + 1}
        letters, chosen = self._do(Look(statement, {**parameters, "queue": self.queue_name}))
        letters = letters[:limit]
        return Page(letters, letters[-1].id if chosen > len(letters) else None)

    def _find(self, ids: list[str]) -> list[DeadLetter]:
        # Without an end: the ids are few.
        found = Look(FIND, {"queue": self.queue_name, "ids": _json(ids)}, budget=_LARGEST_ID)
        letters: list[DeadLetter] = self._do(found)[0]
        return letters

    def _now(self) -> str | None:
        newest = self._do(Newest(self.queue_name))
        return None if newest is None else str(newest)

    def _send_back(self, letters: list[tuple[str, bytes | None]]) -> int:
        return int(self._do(SendBack(self.queue_name, letters)))

    def _delete(self, ids: list[str]) -> int:
        return int(self._do(Delete(DELETE, (self.queue_name, _json(ids)))))

    def _delete_oldest(self, count: int, until: str) -> int:
        return int(self._do(Delete(DELETE_OLDEST, (self.queue_name, int(until), count))))

    def _do(self, operation: Operation) -> Any:
        return self._broker._attach().store.do(operation)


def _row_id(id: str) -> int | None:
    """The row that an id stands for; None if it is no id of ours."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None


def _json(ids: list[str]) -> str:
    return json.dumps([row_id for row_id in map(_row_id, ids) if row_id is not None])


# -- operations


class Look(Operation):
    """Read some letters. Its result: (the letters, how many were chosen)."""

    __slots__ = ("_parameters", "_statement")

    writes = False

    def __init__(self, statement: str, parameters: dict[str, Any], budget: int = PAGE_BYTES) -> None:
        super().__init__()
        self._statement = statement
        self._parameters = {**parameters, "longest": MAX_MESSAGE_BYTES, "budget": budget}

    def run(self, connection: sqlite3.Connection) -> tuple[list[DeadLetter], int]:
        rows, payloads, chosen = connection.execute(self._statement, self._parameters).fetchone()
        letters: list[DeadLetter] = []
        start = 0
        for id, died_at, reason, deliveries, size in json.loads(rows):
            payload: bytes | None = None
            if size <= MAX_MESSAGE_BYTES:
                payload = (payloads or b"")[start : start + size]
                start += size
            letters.append(
                DeadLetter(str(id), self._parameters["queue"], died_at, reason or None, payload, size, deliveries)
            )
        return letters, chosen


class Newest(Operation):
    """The id of the letter that died last. Its result: that, or None."""

    __slots__ = ("_queue",)

    writes = False

    def __init__(self, queue: str) -> None:
        super().__init__()
        self._queue = queue

    def run(self, connection: sqlite3.Connection) -> int | None:
        newest: int | None = connection.execute(NEWEST, (self._queue,)).fetchone()[0]
        return newest


class SendBack(Operation):
    """Move letters to the end of their queue. Its result: how many were there."""

    __slots__ = ("_letters", "_queue", "filled")

    def __init__(self, queue: str, letters: list[tuple[str, bytes | None]]) -> None:
        super().__init__()
        self._queue = queue
        self._letters = [(int(id), payload) for id, payload in letters]
        self.filled = (queue,)

    def run(self, connection: sqlite3.Connection) -> int:
        now = now_ms()
        ids = json.dumps([row_id for row_id, _ in self._letters])
        (found,) = connection.execute(PLACES, (self._queue, ids)).fetchone()
        places = {row_id: (priority, message_id) for row_id, priority, message_id in json.loads(found)}
        as_stored: list[int] = []
        rows: list[Row] = []
        for row_id, payload in self._letters:
            if row_id not in places:
                continue
            if payload is None:
                as_stored.append(row_id)
            else:
                priority, message_id = places[row_id]
                rows.append(Row(self._queue, priority, now, READY, message_id, payload))
        insert(connection, rows)
        if as_stored:
            connection.execute(SEND_BACK, (now, self._queue, json.dumps(as_stored)))
        connection.execute(DELETE, (self._queue, ids))
        return len(places)


class Delete(Operation):
    """Delete letters. Its result: how many there were."""

    __slots__ = ("_parameters", "_statement")

    def __init__(self, statement: str, parameters: tuple[Any, ...]) -> None:
        super().__init__()
        self._statement = statement
        self._parameters = parameters

    def run(self, connection: sqlite3.Connection) -> int:
        return connection.execute(self._statement, self._parameters).rowcount
