"""The worker: owns the consumers, the slots and the way they start, pause and stop."""

from __future__ import annotations

import threading
import time

from ..broker import Broker
from ..errors import ConnectionError, Shutdown
from ..event_loop import EventLoop
from ..logging import get_logger
from ..middleware import Middleware
from ..names import canonical_queue_name
from ..runtime import current
from ..settings import DELAY_QUEUE_PREFETCH, QUEUE_PREFETCH, WORKER_TIMEOUT
from ..verdict import REQUEUE, Verdict
from .alone import Solitude
from .consumer import ConsumerThread
from .deadlines import Deadlines
from .delays import HELD_PER_SLOT, MOST_HELD, DelayedConsumerThread
from .lanes import Lanes
from .outage import Outage
from .processor import Processor
from .slots import Slots
from .watch import Watch

#: At the deadline of a stop, how long writing the last verdicts, and ending what runs beside the jobs, may
#: still take: all of it together.
_LAST_WRITE_S = 0.4

#: While somebody waits for what is in the queues, seconds between two looks at them.
_LOOK_AGAIN_S = 0.01


class Worker:
    """Runs the messages of a broker's queues. Does not block: the caller stays alive.

    In a process that gevent has patched, jobs run in greenlets; in any other in native
    threads, 64 at most. One Worker a process.

    Parameters:
      broker(Broker): Whose messages to run.
      queues(set[str]): The queues to consume. Default: all that are declared, also later.
      worker_timeout(int): Milliseconds after which an idle wait looks around, and for which ``pause()``
        waits at most. A message that comes is not waited for: it ends the wait. Default: the environment
        variable GREENQ_WORKER_TIMEOUT, else 1000.
      worker_threads(int): How many jobs may be under way at once. Default: 8.
      concurrency(int): The same by its other name, which comes first.
      lane_threads(int): How many actors with ``lane="thread"`` may run at once, each in a native thread; the
        others wait with their slots. In a process that gevent has not patched it does not count. Default: 8.
      lane_processes(int): The same of ``lane="process"``. Default: the number of CPUs.

    Attributes:
      broker, worker_timeout, worker_threads, concurrency: As given.
      queue_prefetch, delay_prefetch(int): The most messages of a queue, and of a delay queue, that a
        consumer may hold. Read when it starts; greenq's own brokers hand out as many as there are free
        slots. Default: the environment variables GREENQ_QUEUE_PREFETCH and GREENQ_DELAY_QUEUE_PREFETCH;
        else as many as there are slots, and a thousand for each.
      is_paused(bool): Whether it starts nothing new. Set before ``start()``, it starts so.
      given_back(int): How many messages a stop cut short because its time ran out.

    Raises:
      ValueError: A number is too small, or one of those variables is none.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        queues: set[str] | None = None,
        worker_timeout: int | None = None,
        worker_threads: int = 8,
        concurrency: int | None = None,
        lane_threads: int | None = None,
        lane_processes: int | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.runtime = current()
        self.concurrency = self._checked(concurrency if concurrency is not None else worker_threads)
        self.worker_threads = self.concurrency
        self.worker_timeout = WORKER_TIMEOUT.get() if worker_timeout is None else worker_timeout
        self.queue_prefetch = min(QUEUE_PREFETCH.get() or self.concurrency, MOST_HELD)
        self.delay_prefetch = min(DELAY_QUEUE_PREFETCH.get() or self.concurrency * HELD_PER_SLOT, MOST_HELD)
        self.consumer_whitelist = None if queues is None else {canonical_queue_name(name) for name in queues}
        self.consumers: dict[str, ConsumerThread] = {}
        self.outage = Outage(self.runtime)
        self.deadlines = Deadlines(self.runtime)
        self.watch = Watch(self.runtime, self.deadlines)
        self.lanes = Lanes(self.runtime, self.deadlines, threads=lane_threads, processes=lane_processes)
        processor = Processor(self.runtime, broker, self.deadlines, self.lanes, self.watch)
        self.slots = Slots(self.runtime, broker, processor, self.concurrency)
        self.solitude = Solitude(self.runtime, self.slots)
        #: How many messages were given back unfinished when the time to stop ran out.
        self.given_back = 0
        self._lock = threading.Lock()
        self._middleware = _QueueWatch(self)
        self._is_running = False
        self.is_paused = False

    def _checked(self, concurrency: int) -> int:
        if concurrency < 1:
            raise ValueError(f"A worker needs a concurrency of 1 or more, not {concurrency!r}.")
        most = self.runtime.most_slots
        if most is None:
            return concurrency
        self.logger.info(
            "gevent has not patched this process, so jobs run in native threads, %d at once (at most %d).",
            min(concurrency, most),
            most,
        )
        return min(concurrency, most)

    @property
    def jobs_done(self) -> int:
        """How many messages were settled so far; what went back to its queue is not."""
        return sum(consumer.completer.settled for consumer in self.consumers.values())

    @property
    def event_loop(self) -> EventLoop:
        """What async actors run on; it starts with the first."""
        return self.slots.event_loop

    @property
    def is_consuming(self) -> bool:
        """Whether it fetches from a queue at least, as far as it knows: it runs, and the broker is there."""
        return not self.outage.is_on and any(consumer.is_fetching for consumer in self._consumers())

    # -- start

    def start(self) -> None:
        """Start consuming. Hooks of the broker's middleware run. Waits for nothing, not even for the broker:
        one that is away is tried until it is there. May switch, if a hook does.
        """
        self.broker.emit_before("worker_boot", self)
        self._is_running = True
        self.watch.start()
        self.event_loop.offer()
        if any(actor.is_async for actor in list(self.broker.actors.values())):
            self.event_loop.start()  # now, because importing asyncio keeps jobs waiting
        # It is told of every queue that exists now, and of each that is declared later.
        if self._middleware not in self.broker.middleware:
            self.broker.add_middleware(self._middleware)
        self.broker.emit_after("worker_boot", self)

    def add_queue(self, queue_name: str) -> None:
        """Consume this queue too, if it is one of those to consume."""
        if not self._is_running:
            return
        if self.consumer_whitelist is not None and canonical_queue_name(queue_name) not in self.consumer_whitelist:
            return
        is_delay_queue = queue_name in self.broker.delay_queues
        if is_delay_queue and self.broker.holds_delays:
            return
        with self._lock:
            if queue_name not in self.consumers:
                kind = DelayedConsumerThread if is_delay_queue else ConsumerThread
                self.consumers[queue_name] = kind(self, queue_name)

    # -- pause, resume, join

    def pause(self) -> None:
        """Start nothing new. Returns when running jobs have ended, or after worker_timeout.

        Switches.
        """
        deadline = time.monotonic() + self.worker_timeout / 1000
        self.is_paused = True  # also for queues that are declared from now on
        for consumer in self._consumers():
            consumer.pause()
        self.slots.wake()
        for consumer in self._consumers():
            consumer.wait_until_quiet(_left(deadline))
        self.slots.wait_until_free(_left(deadline))

    def resume(self) -> None:
        """Go on after a pause. Does not wait."""
        self.is_paused = False
        for consumer in self._consumers():
            consumer.resume()

    def join(self) -> None:
        """Wait until what is ready in its queues has been run and settled, however long that takes. For tests.

        Delayed messages that the broker holds, and so retries, are not waited for: ``broker.join()`` does
        that. While the worker is paused, or the broker is away, only what was fetched is waited for. On
        Redis and RabbitMQ it misses a message that is on its way from the server at this moment. Switches.
        """
        while True:
            for consumer in self._consumers():
                if isinstance(consumer, DelayedConsumerThread):
                    consumer.wait_until_empty(float("inf"))
            self.slots.wait_until_free(None)
            for consumer in self._consumers():
                consumer.completer.flush()
            if self.slots.in_flight:
                continue
            if not self._may_fetch_more():
                return
            self.runtime.sleep(_LOOK_AGAIN_S)  # no broker tells when a queue has become empty

    def _may_fetch_more(self) -> bool:
        """Whether a queue has messages that will be fetched: a consumer may not have come to them yet."""
        try:
            return any(
                self.broker.queue_counts(consumer.canonical_name).ready > 0
                for consumer in self._consumers()
                if consumer.is_fetching
            )
        except (ConnectionError, NotImplementedError):  # of brokers of the API reference, which do not count
            return False

    # -- stop

    def notify_shutdown(self) -> None:
        """Raise Shutdown in the actors that asked to be told when their worker stops, as soon as they begin."""
        self.slots.processor.has_told_shutdown = True
        for thread in self.slots.running():
            guard, message = thread.guard, thread.message  # in this order: it may go on to its next job
            if message is not None and message.notify_shutdown and guard is not None:
                self.logger.info("Telling message %s that its worker stops.", message._message.message_id)
                guard.interrupt(Shutdown)

    def stop(self, timeout: int = 600_000) -> None:
        """Stop gracefully: take nothing new, let jobs end, give back what is left.

        One deadline for all of it. Shortly before (the lesser of 5 s and a tenth of the
        time) Shutdown is raised in what still runs, so that its clean-up can run. A message
        whose job was cut goes back to its queue at once, and no retry is spent. At the
        deadline the rest goes back too, and stop() returns although those jobs still run:
        the process should end then. ``given_back`` tells how many were cut by the deadline.

        Parameters:
          timeout(int): Milliseconds. Default: 10 minutes.

        A second time it does nothing. Switches.
        """
        deadline = time.monotonic() + timeout / 1000
        if not self._is_running:
            return
        self._is_running = False
        self.broker.emit_before("worker_shutdown", self)
        for consumer in self._consumers():
            consumer.stop()
        self.slots.wake()
        self._give_back_unstarted()
        self.lanes.turn_away()
        grace_s = min(5.0, timeout / 1000 / 10)
        for consumer in self._consumers():
            consumer.task.join(_left(deadline - grace_s))
            if isinstance(consumer, DelayedConsumerThread):
                consumer.give_back_held()
        self._give_back_unstarted()
        self._let_jobs_end(deadline, grace_s)
        last = max(deadline, time.monotonic()) + _LAST_WRITE_S
        self._close(last)
        self.broker.emit_after("worker_shutdown", self)
        # Last, because hooks may close there what coroutines have opened.
        self.event_loop.stop(_left(last))

    def _give_back_unstarted(self) -> None:
        for message, consumer in self.slots.unstarted():
            consumer.completer.hand_over(Verdict(REQUEUE, message))
            self.slots.give_back(1)

    def _let_jobs_end(self, deadline: float, grace_s: float) -> None:
        if self.slots.wait_until_free(_left(deadline - grace_s)):
            return
        late = self.slots.running()
        late_messages = [thread.message for thread in late if thread.message is not None]
        self.logger.warning("The time to stop is nearly over: interrupting %d jobs.", len(late))
        for thread in late:
            if thread.guard is not None:
                thread.guard.interrupt(Shutdown)
        self.slots.wait_until_free(_left(deadline))
        self.lanes.kill()
        for thread in self.slots.running():
            message, consumer = thread.message, thread.consumer
            if message is not None and consumer is not None:
                message._is_interrupted = True
                consumer.completer.hand_over(Verdict(REQUEUE, message))
        self.given_back = sum(message._is_interrupted for message in late_messages)
        if self.given_back:
            self.logger.warning("%d messages went back unfinished; they run again.", self.given_back)

    def _close(self, last: float) -> None:
        # If the broker is away, the messages' leases return them.
        self.slots.close(last)
        self.lanes.close()
        for consumer in self._consumers():
            if not consumer.completer.flush(_left(last)):
                self.logger.warning(
                    "The broker did not take the last verdicts of queue %s in time: those messages run again "
                    "when their lease has ended.",
                    consumer.queue_name,
                )
            consumer.close()
        self.deadlines.close()
        self.watch.stop()
        self.outage.close()
        self.lanes.wait_for_threads(last)
        if self._middleware in self.broker.middleware:
            self.broker.middleware.remove(self._middleware)

    def _consumers(self) -> list[ConsumerThread]:
        with self._lock:
            return list(self.consumers.values())


class _QueueWatch(Middleware):
    """Tells a worker of the queues that are declared."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        self._worker.add_queue(queue_name)

    def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
        self._worker.add_queue(queue_name)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
