"""Fetches the messages of one queue for the free slots.

Waits without holding a slot; takes free slots, fetches as many messages, returns the
slots it did not need. So a worker never holds what it cannot start at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..consumer import BatchConsumer, MessageProxy, Undecodable
from ..errors import ConnectionError
from ..logging import get_logger
from ..names import canonical_queue_name
from ..runtime import Task
from ..verdict import NACK, REQUEUE, Verdict
from .completer import Completer
from .outage import pause_s

if TYPE_CHECKING:
    from ..consumer import Consumer
    from .worker import Worker


class ConsumerThread:
    """A queue's greenlet.

    Parameters:
      worker(Worker): Whose slots it fetches for.
      queue_name(str): The queue.
    """

    def __init__(self, worker: Worker, queue_name: str) -> None:
        self.logger = get_logger(__name__, f"{type(self).__name__}({queue_name})")
        self.queue_name = queue_name
        self.canonical_name = canonical_queue_name(queue_name)
        #: How many bytes that were no message it has come upon.
        self.undecodable = 0
        self.broker = worker.broker
        self.worker = worker
        self.outage = worker.outage
        self.completer = Completer(
            worker.runtime, worker.broker, queue_name, bound=worker.concurrency, outage=worker.outage
        )
        self.consumer: Consumer | None = None
        self.writes_follow_ups = False
        self._is_paused = worker.is_paused
        self._is_stopping = False
        #: Whether the last fetch brought a suspect: more of them may follow, and one is wanted at a time.
        self._met_suspects = False
        self._resumed = worker.runtime.event()
        if not self._is_paused:
            self._resumed.set()
        self._quiet = worker.runtime.event()
        self._stopped = worker.runtime.event()
        self._failing_since: float | None = None
        self.task: Task = worker.runtime.spawn(self._run, name=f"consumer of {queue_name}")

    @property
    def held_messages(self) -> list[MessageProxy]:
        """Delayed messages that it holds until they are due."""
        return []

    @property
    def is_fetching(self) -> bool:
        """Whether it takes what comes: it is neither paused nor about to end."""
        return not (self._is_paused or self._is_stopping)

    # -- called by the worker

    def pause(self) -> None:
        """Fetch nothing more; see wait_until_quiet."""
        self._is_paused = True
        self._resumed.clear()
        self._wake()

    def resume(self) -> None:
        """Fetch again."""
        self._is_paused = False
        self._resumed.set()

    def wait_until_quiet(self, timeout_s: float) -> bool:
        """Wait until it really fetches nothing more. Switches."""
        return self._quiet.wait(timeout_s)

    def stop(self) -> None:
        """Fetch nothing more, and end. Does not wait."""
        self._is_stopping = True
        self._stopped.set()
        self._resumed.set()
        self.completer.lift_bound()
        self._wake()

    def close(self) -> None:
        """Let go of the broker, once all verdicts are written."""
        self.completer.stop()
        if self.consumer is not None:
            self.consumer.close()

    def _wake(self) -> None:
        if self.consumer is not None:
            self.consumer.wake()

    # -- the greenlet

    def _run(self) -> None:
        self.broker.emit_after("consumer_thread_boot", self)
        failures = 0
        while not self._is_stopping:
            try:
                self._open()
                while not self._is_stopping:
                    if self._is_paused:
                        self._rest()
                        self._quiet.set()
                        self._resumed.wait()
                        self._quiet.clear()
                    elif self._fetch():
                        self._note_success()
                        failures = 0
            except ConnectionError as error:
                self.outage.note_failure(self, error)
            except Exception as error:
                self._note_failure(error)
            if not self._is_stopping:
                self._stopped.wait(pause_s(failures))
                failures += 1
        if self.consumer is not None:
            self._return_taken(self.consumer)
        self._rest()
        self._quiet.set()
        self.broker.emit_before("consumer_thread_shutdown", self)

    def _open(self) -> None:
        self._let_go()
        old = self.consumer
        timeout = self.worker.worker_timeout
        self.consumer = self.broker.consume(self.queue_name, prefetch=self._prefetch(), timeout=timeout)
        self.completer.consumer = self.consumer
        self.writes_follow_ups = self.consumer.writes_follow_ups
        if old is not None:
            try:
                old.close()
            except Exception as error:  # it was broken already
                self.logger.debug("A broken consumer could not be closed: %r.", error)

    def _prefetch(self) -> int:
        return self.worker.queue_prefetch

    def _fetch(self) -> bool:
        """Wait for messages, fetch and deliver some; False if no slot was free to ask the broker."""
        consumer, slots = self.consumer, self.worker.slots
        assert consumer is not None
        slots.make_up()
        if isinstance(consumer, BatchConsumer):
            consumer.claims_ahead = slots.in_flight < slots.count and not slots.is_shut
        if not consumer.wait():
            return True
        # What it has taken already is for others, if there is no room for it now.
        has_one = isinstance(consumer, BatchConsumer) and consumer.taken_by_wait is not None
        most = 1 if self._met_suspects else consumer.batch_size
        room = slots.take(most, 0 if has_one else self.worker.worker_timeout / 1000)
        if not room:
            self._let_go()
            return False
        messages: list[MessageProxy] = []
        try:
            if not (self._is_stopping or self._is_paused):
                messages = consumer.fetch(room)
        finally:
            slots.give_back(room - len(messages))
        for message in messages:
            message._consumer = consumer
        if self._is_stopping:
            self._give_back(messages)  # the fetch was under way when the stop came
        else:
            self._deliver(messages)
        return True

    def _rest(self) -> None:
        """Keep nothing from others while nothing is fetched."""
        self._let_go()
        if self.consumer is not None:
            try:
                self.consumer.rest()
            except ConnectionError as error:  # a broker that is away has it back already
                self.logger.debug("What was sent ahead could not be returned: %s.", error)

    def _let_go(self) -> None:
        """Return a message that a wait has taken and for which there is no slot."""
        # A consumer of the API reference keeps it: it can only wait by taking, so the next
        # wait would take another one in its place.
        if isinstance(self.consumer, BatchConsumer):
            self._return_taken(self.consumer)

    def _return_taken(self, consumer: Consumer) -> None:
        message = consumer.hand_over_taken()
        if message is not None:
            self.completer.hand_over(Verdict(REQUEUE, message))

    def _give_back(self, messages: list[MessageProxy]) -> None:
        for message in messages:
            self.completer.hand_over(Verdict(REQUEUE, message))
        self.worker.slots.give_back(len(messages))

    def _deliver(self, messages: list[MessageProxy]) -> None:
        good = [message for message in messages if not message.failed]
        if len(good) < len(messages):
            self._deliver_failed([message for message in messages if message.failed])
        suspect = next((message for message in good if message.is_suspect), None)
        self._met_suspects = suspect is not None
        if suspect is not None:
            self._run_alone(suspect, good)
        elif good:
            self.worker.slots.deliver(good, self)

    def _deliver_failed(self, messages: list[MessageProxy]) -> None:
        # No actor runs for them, so they wait for no suspect.
        undecodable = [message for message in messages if isinstance(message, Undecodable)]
        for message in undecodable:
            self._reject(message)
        self.worker.slots.give_back(len(undecodable))
        given_up = [message for message in messages if not isinstance(message, Undecodable)]
        if given_up:
            self.worker.slots.deliver(given_up, self)

    def _run_alone(self, suspect: MessageProxy, fetched: list[MessageProxy]) -> None:
        # What came with it goes back, for others: it may be a while, and they are not to be lost once
        # more if this is the one that kills.
        self._give_back([message for message in fetched if message is not suspect])
        is_delivered = False
        try:
            is_delivered = self.worker.solitude.run(suspect, self)
        finally:
            if not is_delivered:
                self._give_back([suspect])

    def _reject(self, message: Undecodable) -> None:
        self.undecodable += 1
        self.logger.error(
            "%d bytes in queue %s are no message and go to the dead letters: %s",
            len(message.payload),
            self.queue_name,
            message.reason,
        )
        self.completer.hand_over(Verdict(NACK, message, reason=message.reason))

    def _note_failure(self, error: Exception) -> None:
        # One line when it begins and one when it ends, however often it is tried in between.
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            self.logger.critical("Consuming failed: %r. Trying again until it works.", error, exc_info=True)

    def _note_success(self) -> None:
        self.outage.note_success(self)
        if self._failing_since is not None:
            self.logger.info("Consuming again, after %.1f s.", time.monotonic() - self._failing_since)
            self._failing_since = None
