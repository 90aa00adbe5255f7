"""Looks at a worker now and then, for what is better looked at than counted.

What is running is seen in the slots, so that no message that took an odd way out stays counted
as running for ever. How late greenlets have their turn is seen by one that only waits for its
own. One worker of all looks at the queues, because that asks the broker. Started by the middleware
Prometheus; where the values go: see metrics/shared.py.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..metrics.catalogue import LAGS_MS, OFFSETS, Labels, gauges
from ..metrics.shared import Area

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy
    from .worker import Worker

_TURN_EVERY_S = 0.1
_LOOK_EVERY_S = 1.0
_COUNT_EVERY_S = 5.0
#: Of the time between two looks at what is running, and between two counts of the queues, the
#: part that they themselves may take: with 100,000 slots, or messages, they take a while.
_MOST_OF_TIME = 0.02

_STALLED = OFFSETS["hub_stalled_milliseconds"]
_LAG = OFFSETS["hub_lag_milliseconds"]
_LAG_SUM = _LAG + len(LAGS_MS)
_RUNNING = OFFSETS["messages_inprogress"]
_HELD = OFFSETS["delayed_messages_inprogress"]


class Sampler:
    """Fills in what is looked at.

    Parameters:
      area(Area): Where to.
      number(int): Of the worker, for the label.
      worker(Worker): At what to look.
      record_of(Callable): The record of the actor of a message.
      on_look(Callable): Called at each look.
    """

    def __init__(
        self,
        area: Area,
        number: int,
        worker: Worker,
        record_of: Callable[[MessageProxy], memoryview[float]],
        on_look: Callable[[], None],
    ) -> None:
        self._area = area
        self._worker = worker
        self._broker: Broker = worker.broker
        self._record_of = record_of
        self._on_look = on_look
        self._own = area.record(Labels.WORKER, str(number))
        self._own[OFFSETS["worker_up"]] = 1
        self._own[OFFSETS["worker_starts_total"]] += 1
        #: The records in which something ran, or was held, when it was last looked at.
        self._busy: dict[int, memoryview[float]] = {}
        self._seen: Counter[str] = Counter()
        self._end = worker.runtime.event()
        self._is_elected = False
        spawn = worker.runtime.spawn
        spawn(self._watch_turns, name="hub lag")
        spawn(lambda: self._repeat(self.look, _LOOK_EVERY_S), name="metrics of the worker")
        spawn(lambda: self._repeat(self.count, _COUNT_EVERY_S), name="metrics of the queues")

    def stop(self) -> None:
        """Look once more, then no more. Does not wait: a count may wait for a broker that is away."""
        self._end.set()
        self.look()
        self._own[_STALLED] = math.nan
        if self._is_elected:
            self._forget_queues()
            self._area.resign()

    def _repeat(self, look: Callable[[], None], every_s: float) -> None:
        pause_s = 0.0
        while not self._end.wait(pause_s):
            began = time.monotonic()
            look()
            pause_s = max(every_s, (time.monotonic() - began) / _MOST_OF_TIME)

    # -- turns

    def _watch_turns(self) -> None:
        own = self._own
        while not self._end.is_set():
            due = time.monotonic() + _TURN_EVERY_S
            own[_STALLED] = due
            self._worker.runtime.sleep(_TURN_EVERY_S)  # this is what is measured: how late the hub ends it
            lag_ms = max(0.0, (time.monotonic() - due) * 1000)
            own[_LAG + bisect_left(LAGS_MS, lag_ms)] += 1
            own[_LAG_SUM] += lag_ms

    # -- this worker

    def look(self) -> None:
        """Look at the slots, the consumers and the connection. Does not switch."""
        self._on_look()
        worker, own = self._worker, self._own
        used = worker.slots.in_flight
        own[OFFSETS["slots_used"]] = used
        own[OFFSETS["slots_free"]] = worker.slots.count - used
        own[OFFSETS["broker_away"]] = worker.outage.is_on
        self._add_new(own, "broker_reconnects_total", "", worker.outage.ended)
        consumers = list(worker.consumers.values())
        for consumer in consumers:
            if consumer.undecodable:
                queue = self._area.record(Labels.QUEUE, consumer.canonical_name)
                self._add_new(queue, "undecodable_messages_total", consumer.queue_name, consumer.undecodable)
        running = [each.message for each in worker.slots.running()]
        held = [message for consumer in consumers for message in consumer.held_messages]
        for record in self._busy.values():
            record[_RUNNING] = record[_HELD] = 0
        self._busy = {}
        self._enter(_RUNNING, [message for message in running if message is not None])
        self._enter(_HELD, held)

    def _add_new(self, record: memoryview[float], name: str, of: str, count: int) -> None:
        # The area may have been another worker's before, so the counter has a value of its own.
        record[OFFSETS[name]] += count - self._seen[name + of]
        self._seen[name + of] = count

    def _enter(self, offset: int, messages: list[MessageProxy]) -> None:
        for message in messages:
            record = self._record_of(message)
            self._busy[id(record)] = record
            record[offset] += 1

    # -- the queues

    def count(self) -> None:
        """Ask the broker how many messages there are, unless another worker does. Switches."""
        self._is_elected = self._is_elected or self._area.elect()
        if not self._is_elected:
            return
        for name in sorted({consumer.canonical_name for consumer in list(self._worker.consumers.values())}):
            record = self._area.record(Labels.QUEUE, name)
            try:
                counts = self._broker.queue_counts(name)
                oldest_ms = self._broker.oldest_message_age(name)
            except Exception:
                # A broker that is away, or does not count: the log has it from whoever needs it.
                _forget(record)
                continue
            if self._end.is_set():
                return
            _read(record, "ready_messages", counts.ready)
            _read(record, "reserved_messages", counts.reserved)
            _read(record, "delayed_messages", counts.delayed)
            _read(record, "dead_letters", counts.dead)
            if oldest_ms is None and not counts.ready:
                oldest_ms = 0
            _read(record, "oldest_message_age_milliseconds", oldest_ms)

    def _forget_queues(self) -> None:
        for consumer in list(self._worker.consumers.values()):
            _forget(self._area.record(Labels.QUEUE, consumer.canonical_name))


def _read(record: memoryview[float], name: str, value: int | None) -> None:
    record[OFFSETS["queue_" + name]] = math.nan if value is None else value


def _forget(record: memoryview[float]) -> None:
    for offset, value in gauges(Labels.QUEUE):
        record[offset] = value
