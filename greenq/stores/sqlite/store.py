"""The one native thread of a process that owns its connection to the file.

A lock that another process holds, or a slow disk, stops this thread and never the hub.
Whatever was asked for while a transaction was under way shares the next one: that is
what makes 50 waiting greenlets several times as quick as one.

Knows transactions and failures. What an operation does to the file is its own affair: see
operation.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from itertools import groupby
from typing import Any

from ...errors import ConnectionClosed, ConnectionError, StorageError
from ...runtime import current
from .contention import while_locked
from .file import File, explain
from .operation import Again, Operation


class Store:
    """Runs operations on a file.

    Parameters:
      file(File): It is opened by the first operation.
      notify(Callable): Called in the native thread with what committed operations have
        filled. Must not wait.
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

    def post(self, operation: Operation) -> None:
        """Have an operation run, and be told by its ``ended``. May be called in native threads.

        Does not wait.
        """
        if not self._inbox.put(operation):
            operation.ended()

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
                self._file.close(connection)
            self._tell(operations)

    def _tell(self, operations: list[Operation]) -> None:
        filled: set[str] = set()
        for operation in operations:
            if operation.error is None and operation.filled:
                filled.update(operation.filled)
        if filled:
            # A help and never a condition: who waits also looks for itself. This thread goes on.
            with contextlib.suppress(Exception):
                self._notify(filled)
        for operation in operations:
            if operation.request is None:
                operation.ended()
        self._runtime.answer([operation.request for operation in operations if operation.request is not None])

    def _perform(self, connection: sqlite3.Connection | None, operations: list[Operation]) -> sqlite3.Connection | None:
        """Run these operations in one transaction; return the connection for the next."""
        try:
            if connection is None:
                connection = self._file.open()
            else:
                self._file.check()
            attempt = _Attempt(connection, operations)
            while_locked(self._file.path, self._file.inside, attempt.run)
        except Again:
            return self._perform(connection, operations)
        except ConnectionError as error:
            _fail(operations, type(error), str(error), error.__cause__)
        except Exception as error:
            if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError):
                _fail(operations, StorageError, explain(error, self._file.path), error)
                # What is wrong may only be so with this connection: the next one looks again.
                if connection is not None:
                    self._file.close(connection)
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
        if not any(operation.writes for operation in operations) or _is_one_statement(operations):
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
        kind: type[Operation]
        for kind, operations in groupby(self._operations, key=type):
            kind.run_together(self._connection, list(operations))


def _is_one_statement(operations: list[Operation]) -> bool:
    """Whether they are one statement, which is a transaction of its own."""
    kind = type(operations[0])
    return all(type(each) is kind for each in operations) and kind.are_one_statement(operations)


class _Close(Operation):
    """Comes last; opens nothing that is not open."""

    rank = 3
    writes = False

    def run(self, connection: sqlite3.Connection) -> None:
        pass


class _Inbox:
    """Operations on their way to the thread.

    Without a lock around them, so that nobody who is interrupted while handing one over, or
    calls from a signal handler meanwhile, can leave it held: appending is one step.
    """

    def __init__(self) -> None:
        # Released to wake the thread; otherwise held, by whomever.
        self._bell = current().native_lock()
        self._bell.acquire()
        self._operations: deque[Operation] = deque()
        self._is_closed = False

    def put(self, operation: Operation) -> bool:
        """Hand an operation over; False if nobody will take it any more."""
        self._operations.append(operation)
        if self._is_closed:
            return not self._withdraw(operation)
        if self._bell.locked():
            with contextlib.suppress(RuntimeError):  # somebody else has just released it
                self._bell.release()
        return True

    def _withdraw(self, operation: Operation) -> bool:
        try:
            self._operations.remove(operation)
        except ValueError:
            return False  # the thread has taken it, as one of the last
        return True

    def take(self) -> list[Operation]:
        """All that has come; waits until there is something."""
        while not self._operations:
            self._bell.acquire(False)
            if not self._operations:
                self._bell.acquire()
        return self._drain()

    def close(self) -> list[Operation]:
        """Accept nothing more; return what has come since."""
        self._is_closed = True
        return self._drain()

    def _drain(self) -> list[Operation]:
        # By one thread alone, so what is counted stays.
        return [self._operations.popleft() for _ in range(len(self._operations))]
