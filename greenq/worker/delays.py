"""Holds delayed messages of brokers that cannot hold them themselves.

greenq's own brokers keep delays on their side; this is for brokers written to the API
reference, which put a delayed message on a delay queue and leave the rest to the worker.
"""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING

from ..clock import now_ms
from ..consumer import MessageProxy, read_eta, without_eta
from ..verdict import ACK, REQUEUE, Verdict
from .consumer import ConsumerThread

if TYPE_CHECKING:
    from .worker import Worker

#: How many messages are held for each slot of the worker.
HELD_PER_SLOT = 1000
#: The most that a broker can be asked to hand out unacknowledged (AMQP counts in 16 bits).
MOST_HELD = 65_535


class DelayedConsumerThread(ConsumerThread):
    """Consumes a delay queue: holds each message until it is due, then enqueues it."""

    def __init__(self, worker: Worker, queue_name: str) -> None:
        self._held: list[tuple[int, int, MessageProxy]] = []
        self._numbers = itertools.count()
        super().__init__(worker, queue_name)

    @property
    def held(self) -> int:
        """How many messages it holds."""
        return len(self._held)

    @property
    def held_messages(self) -> list[MessageProxy]:
        return [message for _, _, message in self._held]

    def _prefetch(self) -> int:
        return self.worker.delay_prefetch

    def _fetch(self) -> bool:
        self._release_due()
        consumer = self.consumer
        assert consumer is not None
        if len(self._held) >= self._prefetch():
            # Full of what is due later. What is due sooner may lie behind it: the broker's order.
            self.worker.runtime.sleep(min(1.0, self.worker.worker_timeout / 1000))
            return False
        if consumer.wait():
            self._deliver(consumer.fetch(1))
        return True

    def _deliver(self, messages: list[MessageProxy]) -> None:
        for message in messages:
            due_ms = read_eta(message._message, self.logger) or 0
            if due_ms > now_ms():
                self.broker.emit_before("delay_message", message)
            heapq.heappush(self._held, (due_ms, next(self._numbers), message))

    def _release_due(self) -> None:
        while self._held and self._held[0][0] <= now_ms():
            message = self._held[0][2]
            # Enqueue, then ack: if the first fails, the second does not happen.
            self.broker.enqueue(without_eta(message._message))
            heapq.heappop(self._held)
            self.completer.hand_over(Verdict(ACK, message))

    def give_back_held(self) -> None:
        """Return what is held to the broker, at the end."""
        while self._held:
            self.completer.hand_over(Verdict(REQUEUE, heapq.heappop(self._held)[2]))

    def wait_until_empty(self, deadline: float) -> bool:
        """Wait until nothing is held. Switches."""
        while self._held and time.monotonic() < deadline:
            self.worker.runtime.sleep(0.01)
        return not self._held
