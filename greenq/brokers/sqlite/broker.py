"""The broker that needs no server: a file that all processes of one machine share.

The front of the room. The thread that works on the file is in store.py, what it does there
in operations.py, worker ids and their leases in membership.py; attachment.py puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from ...broker import Broker, checked_lease
from ...errors import QueueNotFound
from ...inspection import QueueCounts, dead_message_ttl_ms
from ...names import canonical_queue_name
from ...per_process import PerProcess
from ...suspicion import MAX_DELIVERIES, checked_max_deliveries, short_cause
from ...verdict import Envelope
from .attachment import Attachment
from .consumer import SqliteConsumer
from .dead_letters import SqliteDeadLetters
from .operations import Count, Flush, Oldest, TakeBack, Write, row, text

if TYPE_CHECKING:
    from ...middleware import Middleware


class SqliteBroker(Broker):
    """Keeps messages in one SQLite file: they survive restarts, and there is nothing to install.

    Nothing is opened or created before the first use. A closed broker opens again when it is
    used again; so does one in a forked child.

    Parameters:
      path(str): The file, which must be on a local disk. Default: greenq.db in the current
        directory, as it is now.
      middleware(list[Middleware]): Default: ``default_middleware``.
      synchronous(str): "NORMAL": a message is safe from a crash of its processes once it is
        enqueued; a power failure can undo the last moments. "FULL": safe from that as well,
        at half the speed. Default: "NORMAL".
      heartbeat_timeout(int): Milliseconds after which the messages of a process that died, or
        stopped, are given to others: the length of its lease, which `--lease` of greenq-worker also
        sets. Default: 15 seconds.
      dead_message_ttl(int): Milliseconds for which dead letters are kept. Workers drop what is
        older. Default: the environment variable GREENQ_DEAD_MESSAGE_TTL, else 7 days.
      max_deliveries(int): How many workers a message may kill before it is moved to the dead letters;
        0 or None for no limit. Only deaths with evidence against it count. Default: 3.
    """

    holds_delays: ClassVar[bool] = True

    def __init__(
        self,
        path: str | os.PathLike[str] = "greenq.db",
        *,
        middleware: list[Middleware] | None = None,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        heartbeat_timeout: int = 15_000,
        dead_message_ttl: int | None = None,
        max_deliveries: int | None = MAX_DELIVERIES,
    ) -> None:
        super().__init__(middleware)
        self.max_deliveries = checked_max_deliveries(max_deliveries)
        if synchronous not in ("NORMAL", "FULL"):
            raise ValueError(f"synchronous is 'NORMAL' or 'FULL', not {synchronous!r}.")
        self.path = os.path.abspath(os.fspath(path))
        self.lease_ms: int = checked_lease("heartbeat_timeout", heartbeat_timeout)
        self._synchronous = synchronous
        self.dead_message_ttl = dead_message_ttl_ms(dead_message_ttl)
        self._own = PerProcess(self._make_attachment, let_go=Attachment.forget)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    __repr__ = __str__

    # -- the producer's side

    def write(self, envelopes: Sequence[Envelope]) -> None:
        """Store these messages, all of them or none. They are stored when it returns.

        Raises:
          ConnectionFailed: The file cannot be opened; nothing was stored.
          StorageError: The file cannot be written; nothing was stored.

        May switch.
        """
        if envelopes:
            self._attach().store.do(Write([row(envelope) for envelope in envelopes]))

    # -- the worker's side

    def connect(self) -> None:
        """Open the file, and make this process a worker, with an id and a lease. May switch.

        Raises:
          BrokerUnusable: The file is none of ours, or cannot be opened.
          ConnectionError: The file cannot be opened now.
        """
        self._attach().join()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> SqliteConsumer:
        """A consumer of a queue; the first one makes this process a worker, with an id and a lease.

        Parameters:
          queue_name(str): The queue.
          prefetch(int): Of no meaning here: a consumer reserves what it is asked to fetch.
          timeout(int): Milliseconds after which waiting ends without a message.

        Raises:
          QueueNotFound: The queue was never declared.
          ConnectionFailed: The file cannot be opened.

        May switch.
        """
        name = canonical_queue_name(queue_name)
        if name not in self.queues:
            raise QueueNotFound(
                f"No queue named {queue_name!r} is declared. Declare it with declare_queue(), or an actor on it."
            )
        attachment = self._attach()
        attachment.join()
        return SqliteConsumer(attachment, name, timeout, self.logger, max_deliveries=self.max_deliveries)

    @property
    def worker_id(self) -> str | None:
        """The id under which this process holds messages now; None before ``connect`` or ``consume``."""
        if self._attachment is None or self._attachment.membership.value is None:
            return None
        return str(self._attachment.membership.value)

    def take_back(self, worker_id: str, *, charge: Collection[str] = (), cause: str | None = None) -> int:
        """Return what a dead worker holds to its queues; answer how many messages that were.

        Parameters:
          worker_id(str): Of a worker that is known to be dead.
          charge(Collection[str]): Ids of the messages that there is evidence against; see Broker.
          cause(str): How it died.

        May switch.
        """
        taken: int = self._attach().store.do(
            TakeBack(int(worker_id), [text(each) for each in charge if each], short_cause(cause))
        )
        return taken

    def close(self) -> None:
        """Return what is still reserved, uncharged, and end threads and connections.

        A second time it does nothing. Consumers made before raise ConnectionClosed from now
        on; a broker that is used again opens the file again. May switch.
        """
        attachment = self._own.take()
        if attachment is not None:
            attachment.close()

    # -- for tests and operators

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue, but for those that other processes are running. May switch."""
        attachment = self._attach()
        attachment.store.do(Flush(canonical_queue_name(queue_name), attachment.membership.value))

    def queue_counts(self, queue_name: str) -> QueueCounts:
        """How many messages of a queue are ready, reserved, delayed and dead. May switch."""
        counts: QueueCounts = self._attach().store.do(Count(canonical_queue_name(queue_name)))
        return counts

    def oldest_message_age(self, queue_name: str) -> int | None:
        """Milliseconds for which the first ready message of a queue has waited; 0 if none is. May switch."""
        age_ms: int = self._attach().store.do(Oldest(canonical_queue_name(queue_name)))
        return age_ms

    def dead_letters_of(self, queue_name: str) -> SqliteDeadLetters:
        """The dead letters of a queue; see Broker."""
        return SqliteDeadLetters(self, queue_name)

    # -- the file

    def _attach(self) -> Attachment:
        return self._own.get()

    @property
    def _attachment(self) -> Attachment | None:
        return self._own.made

    def _make_attachment(self) -> Attachment:
        return Attachment(self.path, self._synchronous, self.lease_ms, self.dead_message_ttl)
