"""What a store does to its file: the base class of all operations.

An operation is asked for in any thread and runs in the store's, in a transaction it
shares with others. It may run twice (a transaction that failed is run again in parts), so
what it finds out is kept in its own attributes and nowhere else before ``committed``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar


class Again(Exception):
    """The transaction has to be rolled back and run again: an operation was too hopeful."""


class Operation:
    """Something to do to the file.

    Attributes:
      request(Any): Answered when it is done; None if nobody waits.
      result(Any): What ``run`` returned.
      error(Exception | None): Why nothing of it was done.
    """

    __slots__ = ("error", "request", "result")

    #: The order in a transaction, lowest first (a broker's: settle, then enqueue, then claim).
    rank: ClassVar[int] = 1
    #: Whether it needs the write lock.
    writes: ClassVar[bool] = True
    #: What others may be waiting for is there once it is committed: a broker's queues in which
    #: a message may be ready, or due earlier.
    filled: Sequence[str] = ()

    def __init__(self) -> None:
        self.request: Any = None
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> Any:
        raise NotImplementedError

    @classmethod
    def run_together(cls, connection: sqlite3.Connection, operations: Sequence[Any]) -> None:
        """Run several of this class that stand one behind the other."""
        for operation in operations:
            operation.result = operation.run(connection)

    @classmethod
    def are_one_statement(cls, operations: Sequence[Any]) -> bool:
        """Whether running these together is one statement, which needs no transaction around it."""
        return False

    def committed(self) -> None:
        """Called in the store's thread once it is sure to last."""

    def ended(self) -> None:
        """Called, if nobody waits for it, once it has been done or has failed. Must not raise."""
