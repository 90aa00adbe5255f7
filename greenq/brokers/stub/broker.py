"""A broker in the memory of one process, for tests.

Holds encoded bytes as the other brokers do, so that what cannot be encoded fails in
tests too. One lock guards all queues of a broker: a message that moves from one to
another is never seen in neither, and ``join`` sees all queues at one moment. Queues are in
queue.py, what hands their messages out in consumer.py.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...broker import Broker
from ...consumer import MessageProxy, read_eta
from ...errors import DecodeError, QueueJoinTimeout, QueueNotFound
from ...inspection import QueueCounts
from ...message import Message
from ...names import canonical_queue_name, delay_queue_name
from ...runtime import current
from ...suspicion import MAX_DELIVERIES, checked_max_deliveries
from ...verdict import Envelope
from .consumer import StubConsumer
from .dead_letters import StubDeadLetters
from .queue import StubQueue, wait

if TYPE_CHECKING:
    from ...middleware import Middleware


class StubBroker(Broker):
    """A broker for tests: its messages live and die with the process.

    Parameters:
      middleware(list[Middleware]): See Broker.
      fail_fast_default(bool): What ``join`` does if it is not told. Default: True.
      max_deliveries(int): Accepted and of no meaning: its messages die with their worker.

    Attributes:
      queues(dict[str, StubQueue]): By name, delay queues ("name.DQ") included.
      dead_letters_by_queue(dict[str, list[MessageProxy]]): By canonical name.
    """

    holds_delays: ClassVar[bool] = True
    shared: ClassVar[bool] = False

    def __init__(
        self,
        middleware: list[Middleware] | None = None,
        *,
        fail_fast_default: bool = True,
        max_deliveries: int | None = MAX_DELIVERIES,
    ) -> None:
        self.fail_fast_default = fail_fast_default
        self.dead_letters_by_queue: defaultdict[str, list[MessageProxy]] = defaultdict(list)
        # Of the operating system, because producers may be in any thread. Nothing is waited
        # for while it is held, so it does not stop the hub of a patched process.
        self._lock = current().native_lock()
        super().__init__(middleware)
        self.max_deliveries = checked_max_deliveries(max_deliveries)

    def __str__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def dead_letters(self) -> list[MessageProxy]:
        """The dead letters of all queues."""
        return [message for messages in self.dead_letters_by_queue.values() for message in messages]

    def _add_queue(self, queue_name: str) -> None:
        self.queues[queue_name] = StubQueue(self._lock, self._place)
        self.queues[delay_queue_name(queue_name)] = StubQueue(self._lock, self._place, is_ordered_by_due=True)

    def _queue(self, queue_name: str) -> StubQueue:
        try:
            queue: StubQueue = self.queues[queue_name]
        except KeyError:
            raise QueueNotFound(
                f"No queue named {queue_name!r} is declared. Declare an actor with that queue_name, or "
                f"call declare_queue({queue_name!r}), before using it."
            ) from None
        return queue

    def _place(self, payload: bytes) -> tuple[int, int | None]:
        """The priority and the due time of bytes that somebody put in directly."""
        try:
            message = Message.decode(payload)
        except DecodeError:
            return 0, None
        try:
            priority = self._priority(message)
        except ValueError:  # the worker moves it to the dead letters and says why
            priority = 0
        return priority, read_eta(message, self.logger)

    def prepare(self, message: Message[Any], *, delay: int | None = None) -> Envelope:
        self._queue(canonical_queue_name(message.queue_name))
        return super().prepare(message, delay=delay)

    def write(self, envelopes: Sequence[Envelope]) -> None:
        places = [self._place_of(envelope) for envelope in envelopes]
        with self._lock:
            for queue, envelope in zip(places, envelopes, strict=True):
                queue.add(envelope.payload, envelope.priority, envelope.due_ms)

    def _place_of(self, envelope: Envelope) -> StubQueue:
        name = envelope.queue_name
        return self._queue(name if envelope.due_ms is None else delay_queue_name(name))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> StubConsumer:
        """A consumer of a queue; see Broker.

        Parameters:
          queue_name(str): The queue.
          prefetch(int): The most messages that it holds unsettled.
          timeout(int): Milliseconds after which waiting ends without a message.

        Raises:
          QueueNotFound: The queue was never declared.
        """
        self._queue(queue_name)
        return StubConsumer(self, queue_name, prefetch, timeout)

    def queue_counts(self, queue_name: str) -> QueueCounts:
        """How many messages of a queue are ready, reserved, delayed and dead; see Broker.

        Raises:
          QueueNotFound: The queue was never declared.
        """
        name = canonical_queue_name(queue_name)
        queue, delayed = self._queue(name), self._queue(delay_queue_name(name))
        with self._lock:
            reserved = queue.unfinished_tasks - queue.qsize()
            return QueueCounts(queue.qsize(), reserved, delayed.qsize(), len(self.dead_letters_by_queue.get(name, ())))

    def dead_letters_of(self, queue_name: str) -> StubDeadLetters:
        """The dead letters of a queue; see Broker."""
        return StubDeadLetters(self, queue_name)

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue: waiting, delayed and dead ones.

        Those that are being processed stay; ``join`` waits for them.
        """
        queues = self._with_delay_queue(queue_name)
        with self._lock:
            for queue in queues:
                queue.empty()
            # The list stays the same object: consumers and tests may hold it.
            if queue_name in self.dead_letters_by_queue:
                self.dead_letters_by_queue[queue_name].clear()

    def join(
        self, queue_name: str, *, interval: int = 100, timeout: int | None = None, fail_fast: bool | None = None
    ) -> None:
        """Wait until all messages of a queue, delayed ones and retries included, are done.

        Parameters:
          queue_name(str): The queue.
          interval(int): Accepted and of no meaning: it need not look, because it is told.
          timeout(int): Milliseconds. Default: no limit.
          fail_fast(bool): Whether to raise what the first dead letter of this queue raised.
            Dead letters of earlier joins count until they are flushed. Default: the broker's
            fail_fast_default.

        Raises:
          QueueNotFound: The queue was never declared.
          QueueJoinTimeout: The messages were not done in time.

        Switches.
        """
        queues = self._with_delay_queue(queue_name)
        deadline = math.inf if timeout is None else time.monotonic() + timeout / 1000

        def unfinished() -> int:
            with self._lock:
                return sum(queue.unfinished_tasks for queue in queues)

        wait(queues, current().event(), lambda: deadline - time.monotonic() if unfinished() else 0)
        count = unfinished()
        if count:
            raise QueueJoinTimeout(f"{count} messages of queue {queue_name!r} were not done within {timeout} ms.")
        if self.fail_fast_default if fail_fast is None else fail_fast:
            for message in self.dead_letters_by_queue.get(queue_name, ()):
                if message._exception is not None:
                    raise message._exception

    def _with_delay_queue(self, queue_name: str) -> list[StubQueue]:
        names = {queue_name, delay_queue_name(queue_name)}
        return [self._queue(name) for name in sorted(names)]
