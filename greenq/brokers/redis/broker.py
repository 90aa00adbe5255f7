"""The broker for production: Redis, version 6.2 or newer.

The front of the room. What is stored is in keys.py, what the server does with it in
scripts/, connections begin in connection.py, worker ids and leases are in membership.py;
attachment.py puts them together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...broker import Broker, checked_lease
from ...consumer import read_eta
from ...errors import DecodeError, QueueNotFound
from ...inspection import QueueCounts, dead_message_ttl_ms
from ...message import MAX_MESSAGE_BYTES, Message
from ...names import canonical_queue_name
from ...per_process import PerProcess
from ...suspicion import MAX_DELIVERIES, checked_max_deliveries, short_cause
from ...verdict import Envelope
from .attachment import Attachment
from .connection import check_client, database_of, is_cluster, make_client, where
from .consumer import RedisConsumer
from .dead_letters import RedisDeadLetters
from .keys import Layout
from .scripts import COUNT, FLUSH, OLDEST
from .store import store

if TYPE_CHECKING:
    import redis

    from ...middleware import Middleware


class RedisBroker(Broker):
    """Keeps messages on a Redis server, which many processes and machines share.

    Nothing is connected before the first use. A closed broker connects again when it is used
    again; so does one in a forked child.

        RedisBroker(url="redis://:secret@10.0.0.5:6379/0")
        RedisBroker(host="10.0.0.5", port=6379, password="secret")
        RedisBroker(client=sentinel.master_for("jobs"))

    Parameters:
      url(str): Of the server: redis://, rediss:// or unix://. Other parameters are added to it;
        where both say something, the URL counts.
      middleware(list[Middleware]): Default: ``default_middleware``.
      namespace(str): The first part of all keys. Default: "greenq".
      maintenance_chance(int): Accepted and of no meaning: maintenance is done on a timer,
        every few seconds, never by chance.
      heartbeat_timeout(int): Milliseconds after which the messages of a process that died, or
        stopped, are given to others: the length of its lease, which `--lease` of greenq-worker also
        sets. Default: 15 seconds.
      dead_message_ttl(int): Milliseconds for which dead letters are kept. Workers drop what is
        older. Default: the environment variable GREENQ_DEAD_MESSAGE_TTL, else 7 days.
      max_deliveries(int): How many workers a message may kill before it is moved to the dead letters;
        0 or None for no limit. Only deaths with evidence against it count. Default: 3.
      requeue_deadline(int): Accepted and of no meaning: what a stopping worker returns is
        written until the time to stop is over.
      requeue_interval(int): Accepted and of no meaning: so is this.
      client: A client of redis-py: Redis, a Sentinel's master, or RedisCluster. Its
        settings are used for connections that the broker makes itself, which never repeat a
        command.
      parameters: Of redis-py's client, when it is made here.

    Attributes:
      client: The client that was given, or the one that was made. For the application's own use.
      namespace, maintenance_chance, dead_message_ttl, requeue_deadline, requeue_interval: As given.
      heartbeat_timeout, lease_ms(int): The length of this process's lease, in milliseconds.

    Raises:
      ValueError: The namespace cannot be one, the client decodes responses or is one of replicas, a
        duration makes no sense, or there is a client and what it takes to make one.
    """

    holds_delays: ClassVar[bool] = True

    def __init__(
        self,
        *,
        url: str | None = None,
        middleware: list[Middleware] | None = None,
        namespace: str = "greenq",
        maintenance_chance: int = 1000,
        heartbeat_timeout: int = 15_000,
        dead_message_ttl: int | None = None,
        max_deliveries: int | None = MAX_DELIVERIES,
        requeue_deadline: int | None = None,
        requeue_interval: int | None = None,
        client: redis.Redis | redis.RedisCluster | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(middleware)
        self.max_deliveries = checked_max_deliveries(max_deliveries)
        if client is not None and (url is not None or parameters):
            raise ValueError("Give a client, or what it takes to make one: not both.")
        self.client: Any = make_client(url, parameters) if client is None else client
        check_client(self.client)
        self.namespace = namespace
        self.maintenance_chance = maintenance_chance
        self.lease_ms: int = checked_lease("heartbeat_timeout", heartbeat_timeout)
        self.dead_message_ttl = dead_message_ttl_ms(dead_message_ttl)
        self.requeue_deadline = requeue_deadline
        self.requeue_interval = requeue_interval
        self.layout = Layout(namespace, is_cluster=is_cluster(self.client))
        self._own = PerProcess(self._make_attachment)

    def __str__(self) -> str:
        database = database_of(self.client)
        chosen = f", db={database}" if database else ""
        return f"{type(self).__name__}({where(self.client)}{chosen}, namespace={self.namespace!r})"

    __repr__ = __str__

    @property
    def heartbeat_timeout(self) -> int:
        """The length of this process's lease, in milliseconds."""
        return self.lease_ms

    def _add_queue(self, queue_name: str) -> None:
        self.layout.of(queue_name)  # refuses what cannot be stored
        super()._add_queue(queue_name)

    # -- the producer's side

    def write(self, envelopes: Sequence[Envelope]) -> None:
        """Store these messages, all of them or none; on a cluster, all of one queue or none.

        Raises:
          ConnectionFailed: Nothing was stored.
          ConnectionClosed: The server did not confirm. They may be stored or not: enqueueing
            again can run them twice.

        May switch.
        """
        if envelopes:
            store(self._attach(), envelopes)

    # -- the worker's side

    def connect(self) -> None:
        """Connect, and see whether the server is one to keep messages on. May switch.

        The process has its worker id then. What it finds but can live with is logged: an eviction
        policy that drops messages, a server that writes nothing to disk, a user that may not ask
        for these. On a cluster all masters are looked at.

        Raises:
          BrokerUnusable: The server refuses the user or the password, is too old, is a sentinel or
            a node of a cluster.
          ConnectionFailed: The server cannot be reached, is a replica, or is still loading its data.
        """
        attachment = self._attach()
        attachment.check(self.logger)
        attachment.membership.is_announced = True

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> RedisConsumer:
        """A consumer of a queue; the first one makes this process a worker, with an id and leases.

        Parameters:
          queue_name(str): The queue.
          prefetch(int): Of no meaning here: a consumer reserves what it is asked to fetch.
          timeout(int): Milliseconds after which waiting ends without a message.

        Raises:
          QueueNotFound: The queue was never declared.
          ConnectionError: The server is away.

        May switch.
        """
        name = canonical_queue_name(queue_name)
        if name not in self.queues:
            raise QueueNotFound(
                f"No queue named {queue_name!r} is declared. Declare it with declare_queue(), or an actor on it."
            )
        attachment = self._attach()
        attachment.membership.join(name, attachment.links)
        return RedisConsumer(attachment, name, timeout, self.logger, max_deliveries=self.max_deliveries)

    @property
    def worker_id(self) -> str | None:
        """The id under which this process holds messages; None before ``connect`` or ``consume``."""
        attachment = self._attachment
        if attachment is None or not (attachment.membership.is_announced or attachment.membership.queues):
            return None
        return attachment.membership.worker_id

    def take_back(self, worker_id: str, *, charge: Collection[str] = (), cause: str | None = None) -> int:
        """Return what a dead worker holds to its queues; answer how many messages that were.

        Looks at the queues that are declared here.

        Parameters:
          worker_id(str): Of a worker that is known to be dead.
          charge(Collection[str]): Ids of the messages that there is evidence against; see Broker.
          cause(str): How it died.

        Raises:
          ConnectionError: The server is away; on a cluster, one of them, and what is on the others has
            been returned.

        May switch.
        """
        attachment = self._attach()
        charged = [each for each in charge if each]
        return attachment.take_back(list(self.queues), worker_id, charged=charged, cause=short_cause(cause))

    def close(self) -> None:
        """Return what is still reserved, uncharged, and end threads and connections.

        A second time it does nothing. Consumers made before raise ConnectionClosed from now
        on; a broker that is used again connects again. The client is left as it is. May switch.
        """
        attachment = self._own.take()
        if attachment is not None:
            attachment.close()

    # -- for tests and operators

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue, but for those that other processes are running. May switch."""
        attachment = self._attach()
        of = self.layout.of(canonical_queue_name(queue_name))
        attachment.links.call(FLUSH, of.for_flush(), [attachment.membership.worker_id])

    def queue_counts(self, queue_name: str) -> QueueCounts:
        """How many messages of a queue are ready, reserved, delayed and dead. May switch."""
        of = self.layout.of(canonical_queue_name(queue_name))
        ready, reserved, delayed, dead, _ = self._attach().links.call(COUNT, of.for_count(), [])
        return QueueCounts(ready, reserved, delayed, dead)

    def oldest_message_age(self, queue_name: str) -> int | None:
        """Milliseconds for which the first ready message of a queue has waited; 0 if none is. May switch."""
        of = self.layout.of(canonical_queue_name(queue_name))
        payloads, now, due = self._attach().links.call(OLDEST, of.for_oldest(), [MAX_MESSAGE_BYTES])
        since = [float(due)] if due else []
        for payload in payloads:
            try:
                message = Message.decode(payload)
            except DecodeError:
                continue  # it goes to the dead letters when its turn comes
            since.append(read_eta(message, self.logger) or message.message_timestamp)
        return max(0, round(now - min(since))) if since else 0

    def dead_letters_of(self, queue_name: str) -> RedisDeadLetters:
        """The dead letters of a queue; see Broker.

        Raises:
          ValueError: No queue can have this name.
        """
        return RedisDeadLetters(self, queue_name)

    # -- the server

    def _attach(self) -> Attachment:
        return self._own.get()

    @property
    def _attachment(self) -> Attachment | None:
        return self._own.made

    def _make_attachment(self) -> Attachment:
        return Attachment(self.client, self.layout, self.heartbeat_timeout, self.dead_message_ttl)
