"""The one native thread of a process that owns its connection to the file.

A lock that another process holds, or a slow disk, stops this thread and never the hub.
Whatever was asked for while a transaction was under way shares the next one: that is
what makes 50 waiting greenlets several times as quick as one.

Knows transactions and failures. What an operation does to the file: see operations.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

from ...errors import ConnectionClosed, ConnectionError, StorageError
from ...runtime import current
from .contention import while_locked
from .file import File, explain
from .operations import Again, Operation, Row, Write, insert


class Store:
    """Runs operations on a file.

    Parameters:
      file(File): It is opened by the first operation.
      notify(Callable): Called in the native thread with the names of queues in which
        committed operations may have made a message ready. Must not wait.
    """

    def __init__(self, file: File, notify: Callable[[set[str]], None]) -> None:
        self._file = file
        self._notify = notify
        self._runtime = current()
        self._inbox = _Inbox()
        self._runtime.start_native_thread(self._run, name="greenq-sqlite")

    def do(self, operation: Operation) -> Any:
        """Run an operation; return its result once it is sure to last.

        Raises:
          ConnectionFailed: The file could not be opened.
          StorageError: The file could not be read or written; nothing was done.
          ConnectionClosed: The store is closed.

        May switch.
        """
        operation.request = self._runtime.request()
        if not self._inbox.put(operation):
            raise ConnectionClosed(f"The connection to {self._file.path} was closed while it was in use.")
        operation.request.wait()
        if operation.error is not None:
            raise operation.error
        return operation.result

    def close(self) -> None:
        """Close the connection once everything asked for before is done. May switch."""
        with contextlib.suppress(ConnectionError):
            self.do(_Close())

    def forget(self) -> None:
        """Refuse everything from now on: in a forked child, which has no such thread."""
        self._inbox = _Inbox()
        self._inbox.close()

    # -- in the native thread

    def _run(self) -> None:
        # Nothing but this thread's frame refers to the connection: a forked child has no such
        # thread, so there it is never closed, which would spoil the parent's.
        connection: sqlite3.Connection | None = None
        is_closing = False
        while not is_closing:
            operations = self._inbox.take()
            is_closing = any(type(operation) is _Close for operation in operations)
            if is_closing:
                operations += self._inbox.close()
            operations.sort(key=_rank)
            if connection is not None or type(operations[0]) is not _Close:
                connection = self._perform(connection, operations)
            if is_closing and connection is not None:
                connection.close()
            self._tell(operations)

    def _tell(self, operations: list[Operation]) -> None:
        filled: set[str] = set()
        for operation in operations:
            if operation.error is None and operation.filled:
                filled.update(operation.filled)
        if filled:
            self._notify(filled)
        self._runtime.answer([operation.request for operation in operations])

    def _perform(self, connection: sqlite3.Connection | None, operations: list[Operation]) -> sqlite3.Connection | None:
        """Run these operations in one transaction; return the connection for the next."""
        try:
            if connection is None:
                connection = self._file.open()
            else:
                self._file.check()
            attempt = _Attempt(connection, operations)
            while_locked(self._file.path, attempt.run)
        except Again:
            return self._perform(connection, operations)
        except ConnectionError as error:
            _fail(operations, type(error), str(error), error.__cause__)
        except Exception as error:
            if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError):
                _fail(operations, StorageError, explain(error, self._file.path), error)
                # What is wrong may only be so with this connection: the next one looks again.
                if connection is not None:
                    connection.close()
                return None
            if len(operations) == 1:
                operations[0].error = error
                return connection
            # One of them is unacceptable, and the others must not suffer for it.
            for operation in operations:
                connection = self._perform(connection, [operation])
        else:
            for operation in operations:
                operation.committed()
        return connection


def _fail(operations: list[Operation], kind: type[ConnectionError], text: str, cause: BaseException | None) -> None:
    # Each asker raises an error of its own: one would gather the tracebacks of all.
    for operation in operations:
        operation.error = kind(text)
        operation.error.__cause__ = cause


def _rank(operation: Operation) -> int:
    return operation.rank


class _Attempt:
    """One try of a transaction. After a failure nothing of it has been done."""

    def __init__(self, connection: sqlite3.Connection, operations: list[Operation]) -> None:
        self._connection = connection
        self._operations = operations

    def run(self) -> None:
        operations = self._operations
        writes = any(operation.writes for operation in operations)
        if not writes or (len(operations) == 1 and operations[0].is_one_statement):
            self._run_all()
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._run_all()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _run_all(self) -> None:
        rows: list[Row] = []
        for operation in self._operations:
            if type(operation) is Write:
                rows += operation.rows
                continue
            if rows and operation.rank > Write.rank:
                insert(self._connection, rows)
                rows = []
            operation.result = operation.run(self._connection)
        if rows:
            insert(self._connection, rows)


class _Close(Operation):
    """Comes last; opens nothing that is not open."""

    rank = 3
    writes = False

    def run(self, connection: sqlite3.Connection) -> None:
        pass


class _Inbox:
    """Operations on their way to the thread; guarded by locks of the operating system."""

    def __init__(self) -> None:
        runtime = current()
        self._guard = runtime.native_lock()
        self._bell = runtime.native_lock()
        self._bell.acquire()
        self._operations: list[Operation] = []
        self._is_awaited = False
        self._is_closed = False

    def put(self, operation: Operation) -> bool:
        """Hand an operation over; False if nobody will take it any more."""
        with self._guard:
            if self._is_closed:
                return False
            self._operations.append(operation)
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            self._bell.release()
        return True

    def take(self) -> list[Operation]:
        """All that has come; waits until there is something."""
        while True:
            with self._guard:
                if self._operations:
                    operations, self._operations = self._operations, []
                    return operations
                self._is_awaited = True
            self._bell.acquire()

    def close(self) -> list[Operation]:
        """Accept nothing more; return what has come since."""
        with self._guard:
            self._is_closed = True
            operations, self._operations = self._operations, []
            return operations
