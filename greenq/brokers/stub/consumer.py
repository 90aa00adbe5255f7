"""Hands out the messages of one queue in memory, and keeps what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...clock import now_ms
from ...consumer import BatchConsumer, MessageProxy, Undecodable, read_eta, without_eta
from ...errors import DecodeError
from ...message import Message
from ...names import delay_queue_name
from ...runtime import current
from ...verdict import NACK, REQUEUE, Verdict
from .dead_letters import Death
from .queue import Entry, StubQueue, wait

if TYPE_CHECKING:
    from .broker import StubBroker


class StubConsumer(BatchConsumer):
    """Hands out the messages of one queue, and moves those that are due into it.

    Parameters:
      broker(StubBroker): Whose queue it is.
      queue_name(str): The queue. A delay queue's messages are handed out as they are, due or not.
      prefetch(int): The most messages that it holds unsettled.
      timeout(int): Milliseconds that it waits.
    """

    batch_size: ClassVar[int] = 100

    def __init__(self, broker: StubBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self._broker = broker
        self._lock = broker._lock
        self._queue_name = queue_name
        self._queue = broker._queue(queue_name)
        self._delayed = broker._queue(delay_queue_name(queue_name))
        self._prefetch = prefetch
        self._timeout_s = timeout / 1000
        self._held: set[int] = set()
        self._event = current().event()
        self._is_woken = False

    def wait(self) -> bool:
        return self._wait_until(time.monotonic() + self._timeout_s)

    def wake(self) -> None:
        self._is_woken = True
        self._event.set()

    def fetch(self, count: int) -> list[MessageProxy]:
        with self._lock:
            self._move_due()
            count = min(count, self._prefetch - len(self._held), self._queue.qsize())
            entries = [self._queue.take() for _ in range(count)]
            self._held.update(entry.number for entry in entries)
        messages = [self._hand_out(entry) for entry in entries]
        return [message for message in messages if message is not None]

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        followed = [(verdict, self._places_of(verdict)) for verdict in verdicts]
        with self._lock:
            for verdict, places in followed:
                self._settle(verdict, places)
        return ()

    # -- steps of waiting

    def _wait_until(self, deadline: float) -> bool:
        wait([self._queue, self._delayed], self._event, lambda: self._idle_s(deadline))
        is_woken, self._is_woken = self._is_woken, False
        return not is_woken and self._idle_s(deadline) == 0

    def _idle_s(self, deadline: float) -> float:
        """How long there is nothing to do, as far as is known; 0 if there is something."""
        if self._is_woken:
            return 0
        left_s = deadline - time.monotonic()
        with self._lock:
            self._move_due()
            if self._queue.qsize() and len(self._held) < self._prefetch:
                return 0
            first = self._delayed.first()
        if first is not None and self._delayed is not self._queue:
            left_s = min(left_s, (first.rank - now_ms()) / 1000)
        return left_s

    def _move_due(self) -> None:
        if self._delayed is self._queue:
            return
        now = now_ms()
        while (first := self._delayed.first()) is not None and first.rank <= now:
            self._delayed.take()
            self._queue.add(first.payload, first.priority, None)
            self._delayed.done()  # last, so that join never sees the message in neither queue

    # -- steps of fetching

    def _hand_out(self, entry: Entry) -> MessageProxy | None:
        """What is in these bytes; None if it is not due yet and was moved to the delay queue."""
        try:
            message = Message.decode(entry.payload)
        except DecodeError as error:
            return StubUndecodable(self._queue_name, entry, error)
        if self._delayed is not self._queue:
            due_ms = read_eta(message, self._broker.logger)
            if due_ms is not None and due_ms > now_ms():
                with self._lock:
                    self._delayed.add(entry.payload, entry.priority, due_ms)
                    self._held.discard(entry.number)
                    self._queue.done()
                return None
            message = without_eta(message)
        return StubMessage(message, entry)

    # -- steps of settling

    def _places_of(self, verdict: Verdict) -> list[StubQueue]:
        return [self._broker._place_of(envelope) for envelope in verdict.follow_ups or ()]

    def _settle(self, verdict: Verdict, places: list[StubQueue]) -> None:
        message = verdict.message
        assert isinstance(message, StubMessage | StubUndecodable)
        entry = message.entry
        if entry is None:
            return  # it was settled before
        message.entry = None
        self._held.discard(entry.number)
        if verdict.action is REQUEUE:
            self._queue.put_back(entry)
            return
        for queue, envelope in zip(places, verdict.follow_ups or (), strict=True):
            queue.add(envelope.payload, envelope.priority, envelope.due_ms)
        if verdict.action is NACK:
            message.reason = message.reason or verdict.reason
            message.death = Death.now(entry)
            self._broker.dead_letters_by_queue[self._queue_name].append(message)
        self._queue.done()


class StubMessage(MessageProxy):
    """A message as it was handed out. A failed one keeps its exception, for ``join`` to raise."""

    def __init__(self, message: Message[Any], entry: Entry) -> None:
        super().__init__(message)
        #: Its place in the queue; None once it is settled.
        self.entry: Entry | None = entry
        #: Set once it is a dead letter.
        self.death: Death | None = None

    def clear_exception(self) -> None:
        # Of all others it is forgotten: its traceback leads back here, round in a circle.
        if not self.failed:
            super().clear_exception()


class StubUndecodable(Undecodable):
    """Bytes that are no message, as they were handed out. They keep their exception too."""

    def __init__(self, queue_name: str, entry: Entry, error: BaseException) -> None:
        super().__init__(queue_name, entry.payload, error)
        self.entry: Entry | None = entry
        self.death: Death | None = None

    def clear_exception(self) -> None:
        pass
