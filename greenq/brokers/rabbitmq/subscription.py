"""The messages of one queue that this process has from the server, and what it tells it of them.

One for each queue and process, on a channel of its own, shared by all consumers of the queue.
The server sends as many messages as there are slots; they wait in order in the buffer until
there is one, and go back when nobody will take them.

    server --> [buffer] --take--> in hand --> ack / requeue
                  ^                  |
                  +-------put back---+

Messages are known to the server by the tags of this channel; after it is lost the tags mean
nothing, and the server gives the messages to somebody again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ...errors import ConnectionClosed, ConnectionError
from ...names import delay_queue_name
from .connection import TIMEOUT_S, Link, refusal
from .loop import Answer
from .wire import Delivery, DeliveryTaker, ack, requeue, write

#: Seconds in which a hub that stood still reads what came meanwhile, the end of the connection perhaps.
_READ_S = 0.1

#: AMQP counts in 16 bits.
_MOST_PREFETCH = 65_535


class Subscription:
    """The queue's channel. Once it is lost, everything raises the error of the loss.

    Parameters:
      link(Link): The connection.
      queue_name(str): The canonical name.
    """

    def __init__(self, link: Link, queue_name: str) -> None:
        self.queue_name = queue_name
        self._link = link
        self._loop = link.loop
        self._lock = link.loop.runtime.lock()
        self._delayed_tag = delay_queue_name(queue_name).encode()
        #: Deliveries in the order in which they are to be run.
        self._buffer: deque[Delivery] = deque()
        self._is_unsorted = False
        #: From the delay queue; for whoever looks at their etas.
        self._delayed: list[Delivery] = []
        self._on_delayed: Callable[[], None] | None = None
        self._adopts: Callable[[Delivery], bool] | None = None
        #: Tags that the server counts as unacknowledged, in order, the settled ones among them
        #: until all before them are settled, too.
        self._tags: deque[int] = deque()
        self._settled: set[int] = set()
        #: Bytes of messages that were settled, and whose ack was never sent because the connection
        #: was lost before: the server is sure to deliver them again.
        self.never_acknowledged: Counter[bytes] = Counter()
        #: Settled, and their acks held back until it is known whether the connection is still there.
        self._held_back: list[Delivery] = []
        #: Bytes of messages that were here when the channel was lost, and that no job has had.
        self.untouched: Counter[bytes] = Counter()
        self._consumer_tags: list[str] = []
        self._wakers: set[Any] = set()
        self._channel: Any = None
        self.lost: ConnectionError | None = None
        self._is_consuming = False
        self._is_left = False

    # -- from and to the server

    def open(self) -> None:
        """Open the channel. Switches.

        Raises:
          ConnectionError: The server is away.
        """
        self._loop.ask(
            lambda answer: self._link.ready(lambda c: self._open(c, answer), answer.fail), TIMEOUT_S, "answer"
        )

    def _open(self, connection: Any, answer: Answer) -> None:
        # The channel's own news come first; but they may fail on the way.
        self._link.on_lost.append(self._lose)

        def on_channel(channel: Any) -> None:
            self._channel = channel
            if answer.is_given:  # nobody waits any more
                channel.close()
                return
            connection.takers[channel.channel_number] = DeliveryTaker(self._on_deliveries)
            channel.add_on_cancel_callback(lambda _frame: self._on_cancelled())
            answer.give()

        def on_close(channel: Any, error: BaseException) -> None:
            connection.takers.pop(channel.channel_number, None)
            answer.fail(refusal(error, self._link.address))
            self._lose(refusal(error, self._link.address))

        connection.channel(on_open_callback=on_channel).add_on_close_callback(self._loop.guard(on_close))

    def _on_cancelled(self) -> None:
        # The queue was deleted, or its node went away.
        self._lose(ConnectionClosed(f"RabbitMQ ended the consumer of queue {self.queue_name!r}: was it deleted?"))
        if self._channel.is_open:
            self._channel.close()

    def _lose(self, error: ConnectionError) -> None:
        if self.lost is None:
            self.lost = error
            with self._lock:
                self.untouched.update(delivery.body for delivery in (*self._buffer, *self._delayed))
                self._buffer.clear()
                self._delayed.clear()
            self.write_held_back()
            self._wake()
            self._link.on_lost.remove(self._lose)

    def consume(self, prefetch: int) -> None:
        """Have the server send messages, if it does not yet. Switches."""
        if self._is_consuming:
            return
        self._is_consuming = True
        prefetch = max(1, min(prefetch, _MOST_PREFETCH))

        def begin(answer: Answer) -> None:
            if self.lost is not None:
                raise self.lost
            channel = self._channel
            tags = [self.queue_name, delay_queue_name(self.queue_name)]
            self._consumer_tags = list(tags)

            def go_on(_frame: Any) -> None:
                if answer.is_given:  # too late, and the channel is about to end
                    return
                if not tags:
                    answer.give()
                    return
                tag = tags.pop(0)
                channel.basic_consume(tag, _never_called, consumer_tag=tag, callback=go_on)

            channel.add_on_close_callback(lambda _channel, error: answer.fail(refusal(error, self._link.address)))
            channel.basic_qos(prefetch_count=prefetch, callback=go_on)

        try:
            self._loop.ask(begin, TIMEOUT_S, "start to deliver")
        except ConnectionError as error:
            # Nobody knows how far it came, and RabbitMQ ends a whole connection on which a consumer
            # begins a second time. So the next one has a channel of its own.
            self._loop.soon(partial(self._give_up, error))
            raise

    def _give_up(self, error: ConnectionError) -> None:
        channel = self._channel
        self._lose(ConnectionClosed(str(error)))
        if channel.is_open:
            channel.close()

    def _on_deliveries(self, deliveries: list[Delivery]) -> None:
        with self._lock:
            buffer, delayed_tag = self._buffer, self._delayed_tag
            last = buffer[-1].properties.priority if buffer else 256
            for delivery in deliveries:
                self._tags.append(delivery.tag)
                if self._adopts is not None and self._adopts(delivery):
                    continue
                if delivery.consumer_tag == delayed_tag:
                    self._delayed.append(delivery)
                    continue
                priority = delivery.properties.priority
                if priority > last:
                    self._is_unsorted = True
                last = priority
                buffer.append(delivery)
        if self._delayed and self._on_delayed is not None:
            self._on_delayed()
        if self._buffer:
            self._wake()

    def rest(self) -> list[Delivery]:
        """Have the server send nothing more; answer what nobody took, to be settled. Switches."""
        if not self._is_consuming or self.lost is not None:
            return []

        def begin(answer: Answer) -> None:
            if self.lost is not None:
                raise self.lost
            channel, tags = self._channel, self._consumer_tags

            def go_on(_frame: Any) -> None:
                if tags:
                    channel.basic_cancel(tags.pop(0), callback=go_on)
                    return
                with self._lock:
                    self._is_consuming = False
                if not answer.is_given:  # else nobody is there to settle them: they wait for the next
                    answer.give(self.take_all())
                self._wake()  # who is still waiting has the server send again

            channel.add_on_close_callback(lambda _channel, error: answer.fail(refusal(error, self._link.address)))
            go_on(None)

        left: list[Delivery] = self._loop.ask(begin, TIMEOUT_S, "stop to deliver")
        return left

    def close(self) -> None:
        """Close the channel, which returns what is not settled; all acks are written before. Switches."""

        def begin(answer: Answer) -> None:
            channel = self._channel
            self.write_held_back()
            if self.lost is not None or not channel.is_open:
                answer.give()
                return
            channel.add_on_close_callback(lambda _channel, _error: answer.give())
            channel.close()

        self._loop.ask(begin, TIMEOUT_S, "close the channel")

    # -- for consumers

    @property
    def has_some(self) -> bool:
        return bool(self._buffer)

    @property
    def in_hand(self) -> int:
        """How many messages this process has, in the buffer and in hand."""
        return len(self._tags) - len(self._settled)

    @property
    def is_resting(self) -> bool:
        return not self._is_consuming

    def add_waker(self, event: Any) -> None:
        """Have this event set when something comes, or the channel is lost."""
        self._wakers.add(event)

    def remove_waker(self, event: Any) -> None:
        self._wakers.discard(event)

    def _wake(self) -> None:
        for event in list(self._wakers):
            event.set()

    def on_delayed(self, call: Callable[[], None]) -> None:
        """Have this called, in the loop, when something came from the delay queue."""
        self._on_delayed = call

    def adopt(self, adopts: Callable[[Delivery], bool] | None) -> None:
        """Have deliveries for which this is true left out: somebody has them in hand already."""
        self._adopts = adopts

    def take(self, count: int) -> list[Delivery]:
        """The first messages of the buffer."""
        with self._lock:
            if self._is_unsorted:
                self._is_unsorted = False
                self._buffer = deque(sorted(self._buffer, key=_place))
            buffer = self._buffer
            return [buffer.popleft() for _ in range(min(count, len(buffer)))]

    @property
    def has_delayed(self) -> bool:
        return bool(self._delayed)

    def take_delayed(self) -> list[Delivery]:
        with self._lock:
            delayed, self._delayed = self._delayed, []
        return delayed

    def take_all(self) -> list[Delivery]:
        """All that nobody took, from the delay queue too."""
        with self._lock:
            left = [*self._buffer, *self._delayed]
            self._buffer.clear()
            self._delayed.clear()
        return left

    def put_back(self, deliveries: Iterable[Delivery]) -> bool:
        """Put messages into the buffer, at their places; False if nobody takes any more."""
        with self._lock:
            if self._is_left:
                return True  # in the parent
            if self.lost is not None:
                self.untouched.update(delivery.body for delivery in deliveries)
                return True  # with the channel
            if not self._is_consuming:
                return False
            self._buffer.extend(deliveries)
            self._is_unsorted = True
        self._wake()
        return True

    def leave_to_parent(self) -> None:
        """Forget, in a forked child, what is the parent's to run. Consumers find nothing any more."""
        # They are not told that all is lost: those of a worker, whose greenlets go on in the child, would
        # open the queue once more, and the child be a second worker that nobody knows.
        self._is_left = True
        self._lock = self._loop.runtime.lock()  # another thread may have held it
        self._buffer = deque()
        self._delayed = []

    # -- settling

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Remove these messages from the queue. Does not wait: AMQP answers no acks."""
        self._check()
        if deliveries:
            self._loop.soon(lambda: self._acknowledge(deliveries))

    def acknowledge_stored(self, deliveries: Sequence[Delivery]) -> None:
        """Remove messages that were stored anew; those of a lost channel are removed when they come again.

        Raises:
          ConnectionError: The channel is lost.
        """
        try:
            self.acknowledge(deliveries)
        except ConnectionError:
            self.never_acknowledged.update(delivery.body for delivery in deliveries)
            raise

    def give_back(self, tags: Sequence[int]) -> None:
        """Return these messages to their places in the queue. Does not wait."""
        self._check()
        if tags:
            self._loop.soon(lambda: self._return(tags))

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if self.lost is not None:
            self.never_acknowledged.update(delivery.body for delivery in deliveries)
            return
        if self._channel.connection.may_be_given_up:
            # A hub that stood still for longer than the server waits for heartbeats. What is written
            # to a connection that has ended is gone, and nobody would know: all would run again, and
            # what stops the hub for so long each time would do so for ever. So the end is read first.
            if not self._held_back:
                self._loop.later(_READ_S, self.write_held_back)
            self._held_back += deliveries
            return
        self._write_acks(deliveries)

    def write_held_back(self) -> None:
        """Write acks that were held back, now. In the loop."""
        deliveries, self._held_back = self._held_back, []
        if deliveries and self.lost is not None:
            self.never_acknowledged.update(delivery.body for delivery in deliveries)
        elif deliveries:
            self._write_acks(deliveries)

    def _write_acks(self, deliveries: Sequence[Delivery]) -> None:
        tags = [delivery.tag for delivery in deliveries]
        number = self._channel.channel_number
        upto = self._settle(tags)
        frames = []
        if upto:
            frames.append(ack(number, upto, multiple=True))
        frames += [ack(number, tag) for tag in tags if tag > upto]
        if not write(self._channel.connection, b"".join(frames)):
            self.never_acknowledged.update(delivery.body for delivery in deliveries)

    def _return(self, tags: Sequence[int]) -> None:
        if self.lost is not None or not tags:
            return
        self._settle(tags)
        number = self._channel.channel_number
        write(self._channel.connection, b"".join([requeue(number, tag) for tag in sorted(tags)]))

    def _settle(self, tags: Sequence[int]) -> int:
        """Note that these are settled; answer the last of them up to which all are, or 0."""
        settled, outstanding = self._settled, self._tags
        settled.update(tags)
        last = 0
        while outstanding and outstanding[0] in settled:
            last = outstanding.popleft()
            settled.discard(last)
        if not last:
            return 0
        # One that was acknowledged by itself before is nothing the server could find.
        return max((tag for tag in tags if tag <= last), default=0)


def _place(delivery: Delivery) -> tuple[int, int]:
    return -delivery.properties.priority, delivery.tag


def _never_called(*_: Any) -> None:
    raise AssertionError("deliveries are taken before pika sees them")
