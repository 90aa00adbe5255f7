"""The broker for production: RabbitMQ, version 3.10 or newer.

The front of the room. What is declared on the server is in topology.py; connections are in
connection.py, and where they live in loop.py; messages go out through publisher.py and come in
through subscription.py; attachment.py puts them together.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pika

from ...broker import Broker
from ...errors import QueueJoinTimeout, QueueNotFound
from ...inspection import QueueCounts, dead_message_ttl_ms
from ...names import canonical_queue_name
from ...runtime import current
from ...suspicion import MAX_DELIVERIES, checked_max_deliveries
from ...verdict import Envelope
from .attachment import Attachment
from .borrowed import BorrowedConnections
from .consumer import RabbitmqConsumer
from .dead_letters import RabbitmqDeadLetters
from .losses import ANY_NUMBER
from .parameters import make_parameters, where_all
from .topology import Topology, check_name

if TYPE_CHECKING:
    from ...middleware import Middleware


class RabbitmqBroker(Broker):
    """Keeps messages on RabbitMQ, which many processes and machines share.

    Nothing is connected before the first use. A closed broker connects again when it is used
    again; so does one in a forked child.

        RabbitmqBroker(url="amqp://user:secret@10.0.0.5:5672/jobs")
        RabbitmqBroker(url=["amqp://10.0.0.5", "amqp://10.0.0.6"], heartbeat=30)
        RabbitmqBroker(host="10.0.0.5", credentials=pika.PlainCredentials("user", "secret"))
        RabbitmqBroker(url="amqps://10.0.0.5", queue_type="quorum")

    Parameters:
      confirm_delivery(bool): Whether a send returns only when the server has stored the message.
        Default: True. Without it a message can be lost with the connection, without an error.
      url(str | list[str]): The server's, or several servers' that are tried in order, as a
        list or joined by semicolons. Default: guest at localhost.
      middleware(list[Middleware]): Default: ``default_middleware``.
      max_priority(int): Tell so many priorities apart, 1 to 255, in classic queues. Default: none.
      parameters(list[dict] | pika.ConnectionParameters): In place of a URL, servers in pika's words.
      queue_type(str): "classic" or "quorum", of queues that are made. Default: "classic".
      queue_arguments(dict): Further arguments of queues that are made, such as {"x-max-length": 10000}.
      dead_message_ttl(int): Milliseconds for which dead letters are kept. Default: the environment
        variable GREENQ_DEAD_MESSAGE_TTL, else 7 days.
      send_timeout(int): Milliseconds that a send waits for a server that takes or confirms nothing.
        Default: 30 seconds.
      max_deliveries(int): How many times a message may be lost with its worker, or with that one's
        connection, before it is moved to the dead letters; 0 or None for no limit. Default: 3.
      kwargs: Of pika's connection parameters; they replace those of a URL.

    Raises:
      RuntimeError: url or parameters is of a wrong kind.
      ValueError: A URL cannot be read, or the arguments do not go together.
      TypeError: pika knows no such parameter.
    """

    holds_delays: ClassVar[bool] = True

    def __init__(
        self,
        *,
        confirm_delivery: bool = True,
        url: str | list[str] | None = None,
        middleware: list[Middleware] | None = None,
        max_priority: int | None = None,
        parameters: list[dict[str, Any]] | pika.ConnectionParameters | None = None,
        queue_type: str = "classic",
        queue_arguments: Mapping[str, Any] | None = None,
        dead_message_ttl: int | None = None,
        send_timeout: int = 30_000,
        max_deliveries: int | None = MAX_DELIVERIES,
        **kwargs: Any,
    ) -> None:
        super().__init__(middleware)
        self.max_deliveries = checked_max_deliveries(max_deliveries)
        self.parameters: list[pika.ConnectionParameters] = make_parameters(url, parameters, kwargs)
        self.topology = Topology(queue_type, queue_arguments, max_priority, dead_message_ttl_ms(dead_message_ttl))
        self.confirm_delivery = confirm_delivery
        self.max_priority = max_priority
        self.send_timeout = send_timeout
        self._guard = current().native_lock()
        self._attachment: Attachment | None = None
        self._borrowed = BorrowedConnections(self.parameters)
        _brokers.add(self)

    def __str__(self) -> str:
        return f"{type(self).__name__}({where_all(self.parameters)})"

    __repr__ = __str__

    def _add_queue(self, queue_name: str) -> None:
        check_name(queue_name)
        super()._add_queue(queue_name)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare a queue and its delay queue. A second time it does nothing.

        Parameters:
          queue_name(str): The queue.
          ensure(bool): Whether to create it on the server now; otherwise the first message, or
            consumer, does.

        Raises:
          ConnectionError: The server is away, or has such a queue with other arguments; only with
            ``ensure``.
        """
        super().declare_queue(queue_name)
        if ensure:
            self._attach().ensure(canonical_queue_name(queue_name))

    # -- the producer's side

    def write(self, envelopes: Sequence[Envelope]) -> None:
        """Store these messages. RabbitMQ cannot store several in one step: all, or some of them.

        Raises:
          ConnectionFailed: Nothing was stored.
          ConnectionClosed: The server did not confirm. They may be stored or not: enqueueing
            again can run them twice.

        May switch.
        """
        if envelopes:
            self._attach().send(envelopes)

    # -- the worker's side

    def connect(self) -> None:
        """Connect, and declare all queues on the server. May switch.

        Raises:
          QueueMismatch: One exists with other arguments; says which.
          BrokerUnusable: The server refuses the user, the password or the virtual host.
          ConnectionFailed: The server cannot be reached.
        """
        self._attach().connect(sorted(self.queues))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> RabbitmqConsumer:
        """A consumer of a queue. All consumers of a queue in one process share what the server sends.

        Parameters:
          queue_name(str): The queue.
          prefetch(int): How many messages the server may send before the first is settled.
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
        return RabbitmqConsumer(attachment, attachment.join(name), prefetch, timeout, self.logger)

    def close(self) -> None:
        """Return what no job has started with, and end connections and threads.

        A second time it does nothing. Consumers made before raise ConnectionClosed from now
        on; a broker that is used again connects again. May switch.
        """
        with self._guard:
            attachment, self._attachment = self._attachment, None
        self._borrowed.close()
        if attachment is not None:
            attachment.close()

    # -- for the application's own use

    @property
    def connection(self) -> Any:
        """A ``pika.BlockingConnection`` for this thread or greenlet; ``del`` closes it.

        Opened when it is asked for, closed with its thread or greenlet. greenq itself does not
        use it. May switch.
        """
        return self._borrowed.connection()

    @connection.deleter
    def connection(self) -> None:
        self._borrowed.drop_connection()

    @property
    def channel(self) -> Any:
        """A channel of ``connection``; ``del`` closes it. May switch."""
        return self._borrowed.channel()

    @channel.deleter
    def channel(self) -> None:
        self._borrowed.drop_channel()

    # -- for tests and operators

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue, but for those that other processes have. May switch."""
        self._attach().purge(canonical_queue_name(queue_name))

    def join(
        self,
        queue_name: str,
        min_successes: int = 10,
        idle_time: int = 100,
        *,
        interval: int | None = None,
        timeout: int | None = None,
    ) -> None:
        """Wait until a queue is empty. Meant for tests.

        RabbitMQ does not tell how many messages other processes have in hand: those of this
        process are waited for, those of others are not.

        Parameters:
          queue_name(str): The queue.
          min_successes(int): How many times in a row it has to be found empty.
          idle_time(int): Milliseconds between two looks.
          interval(int): The same, in milliseconds too, by the name that it has on all brokers, which comes first.
          timeout(int): Milliseconds. Default: no limit.

        Raises:
          QueueJoinTimeout: There still was something.

        May switch.
        """
        name = canonical_queue_name(queue_name)
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        successes = 0
        while True:
            ready, delayed, _ = self.get_queue_message_counts(name)
            in_hand = self._attach().in_hand(name)
            successes = 0 if ready + delayed + in_hand else successes + 1
            if successes >= min_successes:
                return
            pause_s = (idle_time if interval is None else interval) / 1000
            if deadline is not None:
                pause_s = min(pause_s, deadline - time.monotonic())
                if pause_s <= 0:
                    raise QueueJoinTimeout(
                        f"Queue {queue_name!r} was not found empty {min_successes} times in a row within {timeout} ms: "
                        f"{ready} messages were ready, {delayed} delayed, {in_hand} in hand. Is a worker running on it?"
                    )
            current().sleep(pause_s)

    def queue_counts(self, queue_name: str) -> QueueCounts:
        """How many messages of a queue are ready, delayed and dead; RabbitMQ does not tell how many are reserved.

        Dead letters that somebody looks at in this moment are not counted. May switch.
        """
        ready, delayed, dead = self.get_queue_message_counts(queue_name)
        return QueueCounts(ready=ready, reserved=None, delayed=delayed, dead=dead)

    def dead_letters_of(self, queue_name: str) -> RabbitmqDeadLetters:
        """The dead letters of a queue; see Broker. To look at them is to take them in hand for a moment.

        Raises:
          ValueError: No queue can have this name.
        """
        check_name(canonical_queue_name(queue_name))
        return RabbitmqDeadLetters(self, queue_name)

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """How many messages are ready in a queue, in its delay queue and ladder, and dead. May switch."""
        return self._attach().counts(canonical_queue_name(queue_name))

    # -- the server

    def _attach(self) -> Attachment:
        attachment = self._attachment
        if attachment is None:
            with self._guard:
                attachment = self._attachment
                if attachment is None:
                    attachment = self._attachment = Attachment(
                        self.parameters,
                        self.topology,
                        self.confirm_delivery,
                        self.send_timeout,
                        self.logger,
                        self.max_deliveries or ANY_NUMBER,
                    )
        return attachment

    def _forget(self) -> None:
        # In a child, whose parent may have held the old lock at the fork.
        if self._attachment is not None:
            self._attachment.leave_to_parent()
        _left_to_the_parent.append((self._attachment, self._borrowed))
        self._guard = current().native_lock()
        self._attachment = None
        self._borrowed = BorrowedConnections(self.parameters)


# A child never talks over its parent's connections, which loop.py leaves to it, nor are they deleted here.
_brokers: weakref.WeakSet[RabbitmqBroker] = weakref.WeakSet()
_left_to_the_parent: list[Any] = []


def _forget_in_child() -> None:
    for broker in list(_brokers):
        broker._forget()


os.register_at_fork(after_in_child=_forget_in_child)
