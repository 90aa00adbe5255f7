"""Publishes messages and waits for the server to confirm them: many wait at once.

    send ---> submit ---> [waiting] ---> pump ---> [under way] ---> confirms ---> answer
              any task                   loop, at most a window        loop, many at a time

One channel for everybody. A batch is answered when the server has answered all of it: stored,
refused, or returned because there is no such queue.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import ConnectionClosed, ConnectionError, ConnectionFailed
from .connection import Link, refusal
from .wire import ConfirmTaker, content, pack_properties, publish_method, write

#: How much may be under way unconfirmed. Beyond it senders wait, as they should for a server
#: that is slower than they are.
_WINDOW_MESSAGES = 2000
_WINDOW_BYTES = 16 * 1024 * 1024

#: How much of what was answered with an error is remembered, in case that the server confirms it after all.
_REMEMBERED_MESSAGES = 10_000
_REMEMBERED_BYTES = 64 * 1024 * 1024

#: How much may be on its way to the socket where nothing is confirmed.
_WINDOW_UNSENT_BYTES = 1024 * 1024

#: Seconds between two looks for batches whose time is over.
_LOOK_EVERY_S = 0.25


class Outgoing(NamedTuple):
    """A message to be stored."""

    queue: str
    body: bytes
    priority: int = 0
    headers: dict[str, Any] | None = None


class Batch:
    """Messages that are published together.

    Parameters:
      messages(list[Outgoing]): The messages.
      on_done: Called in the loop when all are answered, or failed.
      deadline(float): On the monotonic clock.
      gives_way(bool): Whether it fails at once when the server takes no messages, because of an alarm.

    Attributes:
      error(ConnectionError | None): Why it is not known to be stored; None if it is.
      is_under_way(bool): Whether the server may still answer it. One that has failed may be stored
        after all: it has no error any more then.
      returned(list[Outgoing]): Those that came back because there is no such queue.
      refused(int): How many the server refused.
    """

    __slots__ = (
        *("deadline", "error", "first_tag", "gives_way", "is_under_way", "left", "messages", "on_done", "refused"),
        *("returned", "size"),
    )

    def __init__(
        self,
        messages: Sequence[Outgoing],
        on_done: Callable[[Batch], None],
        deadline: float,
        *,
        gives_way: bool = False,
    ) -> None:
        self.messages = messages
        self.on_done = on_done
        self.deadline = deadline
        self.gives_way = gives_way
        self.is_under_way = False
        self.first_tag = 0
        self.size = sum(len(message.body) for message in messages)
        self.left = len(messages)
        self.error: ConnectionError | None = None
        self.returned: list[Outgoing] = []
        self.refused = 0


class Publisher:
    """Publishes on one channel of a link.

    Parameters:
      link(Link): The connection.
      confirms(bool): Whether the server confirms. If not, a message counts as stored when it
        is on its way to the socket.
    """

    def __init__(self, link: Link, *, confirms: bool = True) -> None:
        self._link = link
        self._loop = link.loop
        self._confirms = confirms
        self._waiting: deque[Batch] = deque()
        self._refusing = link.loop.runtime.native_lock()
        #: By delivery tag, in order.
        self._under_way: dict[int, Batch] = {}
        self._bytes_under_way = 0
        #: The same of batches that were answered with an error: one queue that confirms nothing must not
        #: fill the window for all others.
        self._remembered: dict[int, Batch] = {}
        self._bytes_remembered = 0
        self._first_tag = 1  # of those under way
        self._next_tag = 1
        self._channel: Any = None
        #: The attempt to open a channel that is under way.
        self._opening: object | None = None
        self._is_pumping = False
        self._is_looking = False
        self._is_answering_later = False
        self._methods: dict[str, bytes] = {}
        link.on_lost.append(self._on_lost)
        link.on_blocked.append(self._give_way)
        link.on_unblocked.append(self._pump)
        link.loop.on_failure.append(self._give_up)

    def submit(self, batches: Sequence[Batch]) -> None:
        """Publish these, soon. From any thread; does not wait."""
        try:
            self._waiting.extend(batches)
            if self._is_pumping:
                return
            self._is_pumping = True
            self._pump_soon()
        except BaseException:
            # A job that is interrupted right here; others may have come since, and count on this.
            self._pump_soon()
            raise

    def _pump_soon(self) -> None:
        try:
            self._loop.soon(self._pump)
        except ConnectionClosed as error:
            # Whoever comes from here on asks, and is told, too; who came before is among these.
            self._is_pumping = False
            self._refuse_waiting(error)

    # -- in the loop

    def _pump(self) -> None:
        self._is_pumping = False
        if not self._waiting:
            return
        if not self._is_looking:
            self._is_looking = True
            self._loop.later(_LOOK_EVERY_S, self._look)
        if self._channel is None:
            self._open()
            return
        if self._link.blocked_by is not None:
            self._give_way()
            return
        frames: list[bytes] = []
        while self._waiting and self._has_room():
            batch = self._waiting.popleft()
            try:
                self._put(batch, frames)
            except Exception as error:
                # This one cannot be sent, whatever it is; nothing of it was put, and the others can.
                batch.error = ConnectionFailed(f"A message cannot be sent: {error!r}")
                batch.on_done(batch)
        if frames:
            write(self._channel.connection, b"".join(frames))
        if not self._confirms:
            self._answer_unconfirmed()

    def _has_room(self) -> bool:
        if not self._under_way:
            return True
        return len(self._under_way) < _WINDOW_MESSAGES and self._bytes_under_way < _WINDOW_BYTES

    def _put(self, batch: Batch, frames: list[bytes]) -> None:
        number, frame_max, methods = self._channel.channel_number, self._frame_max, self._methods
        tag = self._next_tag
        made: list[bytes] = []
        for message in batch.messages:
            method = methods.get(message.queue)
            if method is None:
                method = methods[message.queue] = publish_method(number, message.queue)
            made.append(method)
            properties = pack_properties(message.priority, message.headers)
            made.append(content(number, properties, message.body, frame_max))
        frames += made
        for _ in batch.messages:
            self._under_way[tag] = batch
            tag += 1
        batch.first_tag, self._next_tag = self._next_tag, tag
        batch.is_under_way = True
        self._bytes_under_way += batch.size
        if not batch.messages:
            self._end(batch)

    def _answer_unconfirmed(self) -> None:
        # pika's buffer is all that is between a sender and a socket that takes nothing.
        connection = self._channel.connection
        if connection._transport.get_write_buffer_size() > _WINDOW_UNSENT_BYTES:
            if not self._is_answering_later:
                self._is_answering_later = True
                self._loop.later(0.01, self._answer_unconfirmed_later)
            return
        under_way, self._under_way = self._under_way, {}
        self._bytes_under_way = 0
        for batch in {id(batch): batch for batch in under_way.values()}.values():
            batch.on_done(batch)
        if self._waiting:
            self._pump()

    def _answer_unconfirmed_later(self) -> None:
        self._is_answering_later = False
        if self._channel is not None:
            self._answer_unconfirmed()

    def _on_confirms(self, confirms: list[tuple[int, bool, bool]]) -> None:
        with self._loop.together():
            self._note(confirms)
        if self._waiting:
            self._pump()

    def _note(self, confirms: list[tuple[int, bool, bool]]) -> None:
        under_way = self._under_way
        for tag, is_multiple, is_refused in confirms:
            if is_multiple:
                tags: Any = range(self._first_tag, tag + 1)
                self._first_tag = tag + 1
            else:
                tags = (tag,)
                if tag == self._first_tag:
                    self._first_tag = tag + 1
            for each in tags:
                batch = under_way.pop(each, None) or self._remembered.pop(each, None)
                if batch is None:
                    continue  # it was confirmed by itself before
                batch.left -= 1
                if is_refused:
                    batch.refused += 1
                if not batch.left:
                    self._end(batch)

    def _end(self, batch: Batch) -> None:
        if batch.deadline:
            self._bytes_under_way -= batch.size
        else:
            self._bytes_remembered -= batch.size
        if not batch.deadline and not batch.refused and not batch.returned:
            batch.error = None  # it was answered before, and is stored after all
        if batch.error is None and batch.refused:
            text = f"RabbitMQ at {self._link.address} refused {batch.refused} of {len(batch.messages)} messages for "
            text += ", ".join(sorted({message.queue for message in batch.messages}))
            text += ": the queue may be full (x-max-length with reject-publish), or its node in trouble"
            kind = ConnectionFailed if batch.refused == len(batch.messages) else ConnectionClosed
            batch.error = kind(text)
        # Last: whoever sees in another thread that it is over reads the error next.
        batch.is_under_way = False
        if batch.deadline:
            batch.on_done(batch)

    def _on_return(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        # It comes before the message's confirm, and names no tag. Rare, so looking is good enough.
        key = method.routing_key
        for batch in itertools.chain(self._remembered.values(), self._under_way.values()):
            for message in batch.messages:
                if message.queue == key and message.body == body:
                    # There may be others just like it.
                    if batch.returned.count(message) < batch.messages.count(message):
                        batch.returned.append(message)
                        return
                    break

    def _give_way(self) -> None:
        """Fail what does not wait for the end of an alarm."""
        self._fail_waiting(lambda batch: batch.gives_way)
        self._fail_under_way(lambda batch: batch.gives_way)

    def _fail_waiting(self, is_meant: Callable[[Batch], bool]) -> None:
        """Answer those that were not sent, and are meant."""
        # In the same deque: a thread in submit may have its hands on it.
        for batch in [self._waiting.popleft() for _ in range(len(self._waiting))]:
            if is_meant(batch):
                batch.error = ConnectionFailed(self._why_not_sent())
                batch.on_done(batch)
            else:
                self._waiting.append(batch)

    def _fail_under_way(self, is_meant: Callable[[Batch], bool]) -> None:
        """Answer those that are not confirmed, and are meant."""
        for batch in {id(batch): batch for batch in self._under_way.values()}.values():
            if is_meant(batch):
                batch.error = ConnectionClosed(self._why_not_confirmed())
                batch.deadline = 0.0  # it is answered
                self._remember(batch)
                batch.on_done(batch)

    def _remember(self, batch: Batch) -> None:
        self._bytes_under_way -= batch.size
        self._bytes_remembered += batch.size
        remembered = self._remembered
        for tag in _tags(batch):
            if self._under_way.pop(tag, None) is not None:
                remembered[tag] = batch
        while len(remembered) > _REMEMBERED_MESSAGES or self._bytes_remembered > _REMEMBERED_BYTES:
            oldest = next(iter(remembered.values()))
            for tag in _tags(oldest):
                remembered.pop(tag, None)
            self._bytes_remembered -= oldest.size
            oldest.is_under_way = False

    def _look(self) -> None:
        """Fail what has waited for too long."""
        self._is_looking = False
        now = time.monotonic()
        # All of them: who waits for 3 s may be behind who waits for 30.
        self._fail_waiting(lambda batch: batch.deadline <= now)
        self._fail_under_way(lambda batch: batch.deadline <= now)
        if self._waiting or self._under_way:
            self._is_looking = True
            self._loop.later(_LOOK_EVERY_S, self._look)
        if self._waiting:
            self._pump()  # there may be room now

    def _why_not_sent(self) -> str:
        blocked_by = self._link.blocked_by
        if blocked_by is not None:
            return f"RabbitMQ at {self._link.address} takes no messages ({blocked_by}); nothing was sent to it"
        return f"RabbitMQ at {self._link.address} took nothing in time; nothing was sent to it"

    def _why_not_confirmed(self) -> str:
        blocked_by = self._link.blocked_by
        because = "" if blocked_by is None else f", because it takes no messages ({blocked_by})"
        return f"RabbitMQ at {self._link.address} did not confirm in time{because}; the message may be stored"

    # -- the channel

    def _open(self) -> None:
        if self._opening is not None:
            return
        attempt = self._opening = object()
        self._link.ready(lambda connection: self._on_connection(connection, attempt), self._on_no_connection)

    def _give_up(self, error: ConnectionError) -> None:
        """Nobody knows what an unexpected error has left half done."""
        self._on_lost(error)
        self._on_no_connection(error)

    def _on_no_connection(self, error: ConnectionError) -> None:
        self._opening = None
        self._refuse_waiting(error)

    def _refuse_waiting(self, error: ConnectionError) -> None:
        # After the end of the loop several threads may come here, and one call's batches count together.
        with self._refusing:
            # Out of the same deque, as above.
            for batch in [self._waiting.popleft() for _ in range(len(self._waiting))]:
                batch.error = error if isinstance(error, ConnectionFailed) else ConnectionFailed(str(error))
                batch.on_done(batch)

    def _on_connection(self, connection: Any, attempt: object) -> None:
        def on_channel(channel: Any) -> None:
            channel.add_on_return_callback(self._on_return)
            if self._confirms:
                connection.takers[channel.channel_number] = ConfirmTaker(self._on_confirms)
                channel.confirm_delivery(lambda _frame: None, callback=lambda _frame: on_ready(channel))
            else:
                on_ready(channel)

        def on_ready(channel: Any) -> None:
            if self._opening is not attempt:
                return
            self._opening = None
            self._channel = channel
            self._first_tag = self._next_tag = 1
            self._methods = {}
            self._frame_max = connection.params.frame_max
            self._pump()

        def on_close(channel: Any, error: BaseException) -> None:
            connection.takers.pop(channel.channel_number, None)
            if self._opening is attempt:
                self._opening = None
            if channel is self._channel:
                self._on_lost(refusal(error, self._link.address))
            if self._waiting:
                self._pump()

        connection.channel(on_open_callback=on_channel).add_on_close_callback(self._loop.guard(on_close))

    def _on_lost(self, error: ConnectionError) -> None:
        """The channel is gone: nobody knows what became of what was under way."""
        self._channel = None
        under_way, self._under_way = self._under_way, {}
        remembered, self._remembered = self._remembered, {}
        self._bytes_under_way = self._bytes_remembered = 0
        for batch in remembered.values():
            batch.is_under_way = False
        for batch in {id(batch): batch for batch in under_way.values()}.values():
            batch.error = ConnectionClosed(f"{error}; the message may be stored")
            batch.is_under_way = False
            batch.on_done(batch)


def _tags(batch: Batch) -> range:
    return range(batch.first_tag, batch.first_tag + len(batch.messages))
