"""Counts what becomes of messages; see greenq/metrics for where that is kept and served."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..consumer import DueOptions
from ..errors import Shutdown
from ..logging import get_logger
from ..metrics import shared
from ..metrics.catalogue import DURATIONS_MS, OFFSETS, WAITS_MS, Labels
from ..names import canonical_queue_name
from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy
    from ..message import Message
    from ..worker import Worker
    from ..worker.sampler import Sampler

#: The label of names that nobody has declared: whoever can enqueue could make up any number.
UNKNOWN = "(unknown)"

_SKIPPED, _ERRORS = OFFSETS["messages_total"], OFFSETS["message_errors_total"]
_RETRIES, _REJECTS = OFFSETS["message_retries_total"], OFFSETS["message_rejects_total"]
_REDELIVERIES = OFFSETS["message_redeliveries_total"]
_BLOCKS, _BLOCKED = OFFSETS["message_blocks_total"], OFFSETS["message_blocked_milliseconds_total"]
_DURATION, _WAIT = OFFSETS["message_duration_milliseconds"], OFFSETS["message_wait_milliseconds"]
_DURATION_SUM, _WAIT_SUM = _DURATION + len(DURATIONS_MS), _WAIT + len(WAITS_MS)
_SHORTEST_MS = DURATIONS_MS[0]


class Prometheus(Middleware):
    """Has the metrics of all workers of a ``greenq-worker`` command served to Prometheus.

    Once for all its processes, on ``http://127.0.0.1:9191/metrics``; the environment variables
    ``GREENQ_PROM_HOST`` and ``GREENQ_PROM_PORT`` say otherwise. What is served is listed in
    docs/metrics.md. Of no effect in a process that the command has not started.

    Add it last, so that what the others do is not taken for the job's time.
    """

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self._area: shared.Area | None = None
        self._broker: Broker | None = None
        #: By actor, the queue on which it was seen last, and its record for that.
        self._known: dict[str, tuple[str, memoryview[float]]] = {}
        #: What makes a time in milliseconds of one on the monotonic clock.
        self._wall_ms = 0.0
        self._sampler: Sampler | None = None

    @property
    def forks(self) -> list[Callable[[], int]]:
        from ..metrics.server import serve

        return [serve]

    # -- the process

    def after_process_boot(self, broker: Broker) -> None:
        try:
            self._area = shared.open_area()
        except OSError as error:
            self.logger.error("This worker's metrics are not counted: no room for them could be had (%s).", error)
        self._broker = broker
        self._look_at_the_clock()

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        from ..worker.sampler import Sampler

        if self._area is not None:
            self._sampler = Sampler(
                self._area, shared.worker_number(), worker, self._record_of, self._look_at_the_clock
            )

            worker.watch.on_block.append(self._count_block)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    # -- messages

    # These two are called for every job, and are written for speed: with what calls them they
    # take some two of the twenty microseconds that a job without work takes.

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        inner = message._message
        known = self._known.get(inner.actor_name)
        if known is not None and known[0] == inner.queue_name:
            record = known[1]
        elif self._area is not None:
            record = self._record(inner)
        else:
            return
        began_ms = time.monotonic() * 1000
        made_ms: float = inner.message_timestamp
        options = inner.options
        if type(options) is DueOptions:
            made_ms = options.due_ms or made_ms
        waited_ms = began_ms + self._wall_ms - made_ms
        if waited_ms > _SHORTEST_MS:
            record[_WAIT + bisect_left(WAITS_MS, waited_ms)] += 1.0
            record[_WAIT_SUM] += waited_ms
        else:
            record[_WAIT] += 1.0
            if waited_ms > 0:  # the sender's clock may be ahead
                record[_WAIT_SUM] += waited_ms
        if message.deliveries:
            record[_REDELIVERIES] += 1.0
        message._counting = (record, began_ms)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        counting = message._counting
        if counting is None:
            return
        record, began_ms = counting
        message._counting = None
        took_ms = time.monotonic() * 1000 - began_ms
        if took_ms > _SHORTEST_MS:
            record[_DURATION + bisect_left(DURATIONS_MS, took_ms)] += 1.0
        else:
            record[_DURATION] += 1.0
        record[_DURATION_SUM] += took_ms
        # What was interrupted because its worker stops goes back and runs again: no error.
        if exception is not None and not isinstance(exception, Shutdown):
            record[_ERRORS] += 1.0

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        if self._area is not None:
            self._record_of(message)[_SKIPPED] += 1

    def _count_block(self, message: MessageProxy, kept_ms: float) -> None:
        record = self._record_of(message)
        record[_BLOCKS] += 1
        record[_BLOCKED] += kept_ms

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        if self._area is not None:
            self._record_of(message)[_REJECTS] += 1

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        # Once: on its way from the delay queue to its queue it is not enqueued again.
        if delay is not None and self._area is not None and "requeue_timestamp" in message.options:
            self._record(message)[_RETRIES] += 1

    def _record_of(self, message: MessageProxy) -> memoryview[float]:
        return self._record(message._message)

    def _record(self, message: Message[Any]) -> memoryview[float]:
        known = self._known.get(message.actor_name)
        if known is not None and known[0] == message.queue_name:
            return known[1]
        assert self._area is not None
        assert self._broker is not None
        queue_name = canonical_queue_name(message.queue_name)
        has_queue, has_actor = queue_name in self._broker.queues, message.actor_name in self._broker.actors
        record = self._area.record(
            Labels.ACTOR,
            queue_name if has_queue else UNKNOWN,
            message.actor_name if has_actor else UNKNOWN,
        )
        if has_queue and has_actor:
            self._known[message.actor_name] = (message.queue_name, record)
        return record

    def _look_at_the_clock(self) -> None:
        self._wall_ms = (time.time() - time.monotonic()) * 1000
