"""What one process has of the server, from the first use until the broker is closed, or forks.

Puts the parts together: one connection for publishing, one for consuming, each served where
loop.py says. None of the parts knows the broker.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pika

from ...clock import now_ms
from ...errors import ConnectionClosed, ConnectionError, ConnectionFailed
from ...verdict import Envelope
from .connection import TIMEOUT_S, ArgumentMismatch, Call, ChannelRefused, Link
from .inbox import Inbox
from .loop import Answer, Loop
from .publisher import Batch, Outgoing, Publisher
from .subscription import Subscription
from .topology import DELIVERY_LIMIT, Queue, Topology, rung_for, wire_priority

_NOT_FOUND = 404

#: In RabbitMQ's word about an argument that is different.
_LIMIT_FOUND = re.compile(r"current is (?:none|(?:the value )?'(\d+)')")

#: Seconds that all verdicts of a queue wait for the server to confirm what follows from one of them. It takes
#: milliseconds, but for a queue that has lost its nodes, which may confirm hours later.
_OTHERS_WAIT_S = 3.0

_T = TypeVar("_T")


class Attachment:
    """The parts, made but not yet connected.

    Parameters:
      endpoints(list[pika.ConnectionParameters]): The servers, in the order in which to try them.
      topology(Topology): What to declare.
      confirms(bool): Whether senders wait for the server's confirmation.
      timeout_ms(int): How long they do.
      logger(logging.Logger): The broker's.
      most_losses(int): With so many a message is dead.
    """

    def __init__(
        self,
        endpoints: Sequence[pika.ConnectionParameters],
        topology: Topology,
        confirms: bool,
        timeout_ms: int,
        logger: logging.Logger,
        most_losses: int,
    ) -> None:
        self.topology = topology
        self.most_losses = most_losses
        self.logger = logger
        self.loop = Loop()
        self.publishing = Link(self.loop, endpoints)
        self.consuming = Link(self.loop, endpoints)
        # What a verdict brings with it is always confirmed: only then is its message removed.
        self._publisher = Publisher(self.publishing)
        self._sender = self._publisher if confirms else Publisher(self.publishing, confirms=False)
        self._timeout_s = timeout_ms / 1000
        self._declared: set[str] = set()
        self._ladders: set[str] = set()
        #: Limits of deliveries, None for none, of the queues of dead letters that were made with another.
        self._limits: dict[str, int | None] = {}
        self._no_ladder_at: dict[str, float] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._turns: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()

    # -- queues

    def ensure(
        self, queue_name: str, *, again: bool = False, link: Link | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Have a queue declared on the server, once. May switch.

        Who sends asks over the connection for publishing, which an alarm of the server's stops, too; all
        others ask over that for consuming.

        Raises:
          QueueMismatch: It exists with other arguments.
          ConnectionError: The server is away.
        """
        if again or queue_name not in self._declared:
            queues = self.topology.of(queue_name)
            self._declare(queues, lambda calls: (link or self.publishing).ask_once(queue_name, calls, timeout_s))
            self._declared.add(queue_name)

    def ensure_ladder(self, queue_name: str, *, link: Link | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """Have a queue's ladder of delays declared on the server, once. May switch."""
        if queue_name not in self._ladders:
            queues = self.topology.ladder(queue_name)
            name = f"{queue_name}.DQ"
            self._declare(queues, lambda calls: (link or self.publishing).ask_once(name, calls, timeout_s))
            self._ladders.add(queue_name)

    def _declare(self, queues: Sequence[Queue], ask: Callable[[list[Call]], _T]) -> _T:
        try:
            return ask(self._declarations(queues))
        except ArgumentMismatch as error:
            if not self._tolerate(error):
                raise
        return ask(self._declarations(queues))

    def _declarations(self, queues: Sequence[Queue]) -> list[Call]:
        calls = []
        for name, arguments in queues:
            if name in self._limits:
                limit = self._limits[name]
                arguments = {key: value for key, value in arguments.items() if key != DELIVERY_LIMIT}
                if limit is not None:
                    arguments[DELIVERY_LIMIT] = limit
            calls.append(Call("queue_declare", {"queue": name, "durable": True, "arguments": arguments}))
        return calls

    def _tolerate(self, error: ArgumentMismatch) -> bool:
        """Whether the queue will do as it is: dead letters can be kept with any limit of deliveries."""
        found = _LIMIT_FOUND.search(error.found)
        if error.argument != DELIVERY_LIMIT or not error.queue.endswith(".XQ") or found is None:
            return False
        with self._lock:
            is_new = error.queue not in self._limits
            self._limits[error.queue] = None if found[1] is None else int(found[1])
        if is_new:
            self.logger.warning(
                "Queue %s exists with %s, and is used as it is. RabbitMQ drops dead letters that were looked at more "
                "often than its limit says (RabbitMQ 4: 20 times where there is none): delete the queue once it is "
                "empty, and it is made anew without such a limit.",
                error.queue,
                "no limit of deliveries" if found[1] is None else f"a limit of {found[1]} deliveries",
            )
        return True

    def has_ladder(self, queue_name: str) -> bool:
        """Whether anybody has declared it. May switch."""
        if queue_name in self._ladders:
            return True
        # The server logs each question about a queue that is not there.
        if time.monotonic() - self._no_ladder_at.get(queue_name, -1e9) < 1:
            return False
        rung = self.topology.ladder(queue_name)[0]
        try:
            self.consuming.ask([Call("queue_declare", {"queue": rung.name, "passive": True})])
        except ChannelRefused as error:
            if error.code != _NOT_FOUND:
                raise
            self._no_ladder_at[queue_name] = time.monotonic()
            return False
        self.ensure_ladder(queue_name, link=self.consuming)
        return True

    def counts(self, queue_name: str) -> tuple[int, int, int]:
        """How many messages the server has: ready, delayed, dead. May switch."""
        queues = self.topology.of(queue_name)
        if self.has_ladder(queue_name):
            queues += self.topology.ladder(queue_name)
        frames = self._declare(queues, self.consuming.ask)
        dead, ready, *delayed = (frame.method.message_count for frame in frames)
        return ready, sum(delayed), dead

    def purge(self, queue_name: str) -> None:
        """Drop all messages of a queue, but for those in somebody's hands. May switch."""
        self.ensure(queue_name, link=self.consuming)
        queues = self.topology.of(queue_name)
        if self.has_ladder(queue_name):
            # From the top, so that none comes down behind our back.
            queues = [*reversed(self.topology.ladder(queue_name)), *reversed(queues)]
        calls = [Call("queue_purge", {"queue": queue.name}) for queue in queues]
        for _ in range(2):
            self.consuming.ask(calls)
            inbox = self._inboxes.get(queue_name)
            if inbox is not None and inbox.subscription.lost is None:
                # Asked once more, so that what the server sent before has come by now.
                inbox.subscription.acknowledge(inbox.take_all())

    def in_hand(self, queue_name: str) -> int:
        """How many messages of a queue this process has."""
        inbox = self._inboxes.get(queue_name)
        return 0 if inbox is None or inbox.subscription.lost is not None else inbox.subscription.in_hand

    def turn_at(self, queue_name: str) -> threading.RLock:
        """For who takes dead letters of a queue in hand: what one holds the next would not see."""
        with self._lock:
            return self._turns.setdefault(queue_name, threading.RLock())

    # -- storing

    def place_if_taken(self, envelope: Envelope) -> Outgoing:
        """The same as ``place`` for those who wait neither for the end of an alarm nor for a queue that is silent."""
        return self.place(envelope, self._others_deadline(), link=self.consuming)

    def place(self, envelope: Envelope, deadline: float | None = None, *, link: Link | None = None) -> Outgoing:
        """Where a message goes: to its queue, or to a rung of its ladder. May switch: declares them.

        Raises:
          ConnectionFailed: They could not be declared by the deadline, on the monotonic clock.
        """
        name = envelope.queue_name
        is_delayed = envelope.due_ms is not None and envelope.due_ms > now_ms()
        if deadline is None:
            deadline = time.monotonic() + self._timeout_s
        try:
            self.ensure(name, link=link, timeout_s=max(0.0, deadline - time.monotonic()))
            if is_delayed:
                self.ensure_ladder(name, link=link, timeout_s=max(0.0, deadline - time.monotonic()))
        except ConnectionClosed as error:
            blocked_by = self.publishing.blocked_by
            because = "" if blocked_by is None else f", because it takes no messages ({blocked_by})"
            raise ConnectionFailed(f"{error}{because}; nothing was sent") from error
        priority = wire_priority(envelope.priority)
        if is_delayed and envelope.due_ms is not None:
            wait_ms = envelope.due_ms - now_ms()
            if wait_ms > 0:
                return Outgoing(rung_for(name, wait_ms), envelope.payload, priority)
        return Outgoing(name, envelope.payload, priority)

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Store messages, and wait as senders do. May switch.

        Raises:
          ConnectionFailed: None is stored.
          ConnectionClosed: They may be stored, or some of them.
        """
        deadline = time.monotonic() + self._timeout_s
        (error,) = self._store([[self.place(envelope, deadline) for envelope in envelopes]], self._sender, deadline)
        if error is not None:
            raise error

    def store(self, groups: Sequence[Sequence[Outgoing]]) -> list[ConnectionError | None]:
        """Store groups of messages, confirmed; answer for each why it is not known to be. May switch."""
        return self._store(groups, self._publisher)

    def store_if_taken(self, groups: Sequence[Sequence[Outgoing]]) -> list[Batch]:
        """The same for those who wait neither for the end of an alarm nor for a queue that confirms nothing.

        Answers a batch for each. One with an error may be under way still, and turn out to be stored. May switch.
        """
        return self._publish_all(groups, self._publisher, self._others_deadline(), gives_way=True)

    def _others_deadline(self) -> float:
        return time.monotonic() + min(self._timeout_s, _OTHERS_WAIT_S)

    def _store(
        self, groups: Sequence[Sequence[Outgoing]], publisher: Publisher, deadline: float | None = None
    ) -> list[ConnectionError | None]:
        return [batch.error for batch in self._publish_all(groups, publisher, deadline)]

    def _publish_all(
        self,
        groups: Sequence[Sequence[Outgoing]],
        publisher: Publisher,
        deadline: float | None = None,
        *,
        gives_way: bool = False,
    ) -> list[Batch]:
        if deadline is None:
            deadline = time.monotonic() + self._timeout_s
        batches = self._publish(groups, publisher, deadline, gives_way=gives_way)
        returned = [batch for batch in batches if batch.returned and batch.error is None]
        if returned:
            self._store_returned(returned, publisher, deadline, gives_way=gives_way)
        return batches

    def _publish(
        self, groups: Sequence[Sequence[Outgoing]], publisher: Publisher, deadline: float, *, gives_way: bool = False
    ) -> list[Batch]:
        if not groups:
            return []
        answer = Answer(self.loop)
        left = len(groups)

        def on_done(_batch: Batch) -> None:
            nonlocal left
            left -= 1
            if not left:
                answer.give()

        batches = [Batch(group, on_done, deadline, gives_way=gives_way) for group in groups]
        publisher.submit(batches)
        answer.wait()
        return batches

    def _store_returned(self, batches: list[Batch], publisher: Publisher, deadline: float, *, gives_way: bool) -> None:
        # Somebody deleted the queue; what came back was not stored, so once more.
        gone = sorted({message.queue for batch in batches for message in batch.returned})
        link = self.consuming if gives_way else self.publishing
        self._declared.clear()
        self._ladders.clear()
        try:
            for name in sorted({name.partition(".DQ.")[0] for name in gone}):
                base = name[:-3] if name.endswith((".DQ", ".XQ")) else name
                self.ensure(base, link=link, timeout_s=max(0.0, deadline - time.monotonic()))
                if any(".DQ." in each for each in gone):
                    self.ensure_ladder(base, link=link, timeout_s=max(0.0, deadline - time.monotonic()))
        except ConnectionError as error:
            for batch in batches:
                batch.error = _error_of(batch, error)
            return
        again = self._publish([batch.returned for batch in batches], publisher, deadline, gives_way=gives_way)
        for batch, second in zip(batches, again, strict=True):
            failure = second.error
            if second.returned:
                text = f"RabbitMQ at {self.publishing.address} returned the message: queue "
                text += f"{second.returned[0].queue!r} was deleted, and again after it was declared anew"
                kind = ConnectionFailed if len(second.returned) == len(second.messages) else ConnectionClosed
                failure = kind(text)
            batch.error = None if failure is None else _error_of(batch, failure)

    # -- consuming

    def join(self, queue_name: str) -> Inbox:
        """The inbox of a queue, made by the first consumer. May switch."""
        inbox = self._inboxes.get(queue_name)
        if inbox is None or inbox.subscription.lost is not None:
            self.ensure(queue_name, again=True, link=self.consuming)
            subscription = Subscription(self.consuming, queue_name)
            subscription.open()
            inbox = Inbox(self, subscription, self.logger, before=inbox)
            with self._lock:
                known = self._inboxes.get(queue_name)
                if known is None or known.subscription.lost is not None:
                    self._inboxes[queue_name] = inbox
                else:
                    inbox, surplus = known, subscription
                    self.loop.soon(lambda: surplus._channel.is_open and surplus._channel.close())
        with self._lock:
            inbox.users += 1
        return inbox

    def leave(self, inbox: Inbox) -> None:
        """A consumer was closed; the last one closes the inbox. May switch."""
        with self._lock:
            inbox.users -= 1
            if inbox.users:
                return
            if self._inboxes.get(inbox.queue_name) is inbox:
                del self._inboxes[inbox.queue_name]
        # What is broken already has returned everything.
        with contextlib.suppress(ConnectionError):
            try:
                inbox.rest()
            finally:  # it would be sent messages, and nobody is there to take them
                inbox.subscription.close()

    def leave_to_parent(self) -> None:
        """Forget, in a forked child, what came for the parent. What the loop does is in loop.py."""
        for inbox in list(self._inboxes.values()):
            inbox.subscription.leave_to_parent()

    # -- the end

    def connect(self, queue_names: Sequence[str]) -> None:
        """Connect, and see that these queues can be had. May switch."""
        for queue_name in queue_names:
            self.ensure(queue_name)
        if not queue_names:
            self.publishing.ask([])

    def close(self) -> None:
        """Return what nobody took and close connections, in good order. May switch."""
        for inbox in list(self._inboxes.values()):
            with contextlib.suppress(ConnectionError):
                inbox.rest()
            self.loop.soon(inbox.subscription.write_held_back)
        self.consuming.close()
        self.publishing.close()
        self.loop.close()


def _error_of(batch: Batch, error: ConnectionError) -> ConnectionError:
    """What an error with the returned ones among its messages is to the whole batch."""
    if len(batch.returned) == len(batch.messages) or not isinstance(error, ConnectionFailed):
        return error
    stored = len(batch.messages) - len(batch.returned)
    return ConnectionClosed(f"{stored} of {len(batch.messages)} messages are stored, the others are not: {error}")
