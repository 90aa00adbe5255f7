"""Hands out the messages of one queue and writes what became of them.

What may be handed out is decided in inbox.py. A verdict is written in two steps, because AMQP has no
way to do both at once: what follows from it is published and confirmed, then the message is
acknowledged. A crash in between leaves both, never none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...consumer import BatchConsumer, MessageProxy
from ...errors import ConnectionClosed, ConnectionError, ConnectionFailed
from ...failures import dead_payload
from ...verdict import NACK, REQUEUE, Envelope, Verdict
from .dead_letters import letter
from .inbox import Fate, Inbox
from .publisher import Outgoing
from .subscription import Subscription

if TYPE_CHECKING:
    from .attachment import Attachment


class RabbitmqConsumer(BatchConsumer):
    """A consumer of one queue.

    Parameters:
      attachment(Attachment): Of this process to the server.
      inbox(Inbox): The queue's, which all of its consumers share.
      prefetch(int): How many messages the server may send unacknowledged.
      timeout(int): Milliseconds after which waiting ends.
      logger(logging.Logger): The broker's.
    """

    batch_size: ClassVar[int] = 500

    def __init__(
        self, attachment: Attachment, inbox: Inbox, prefetch: int, timeout: int, logger: logging.Logger
    ) -> None:
        self.logger = logger
        self.queue_name = inbox.queue_name
        self._attachment = attachment
        self._inbox = inbox
        self._subscription = inbox.subscription
        self._prefetch = prefetch
        self._timeout_s = timeout / 1000
        self._event = attachment.loop.runtime.event()
        self._subscription.add_waker(self._event)
        self._is_woken = False
        self._is_closed = False

    # -- waiting

    def wait(self) -> bool:
        """Wait until there is something to fetch.

        Has the server send messages, as many as there are slots; other consumers of this
        process may take them.

        Returns False if the timeout passed, or ``wake`` was called.

        Raises:
          ConnectionClosed: The connection is lost, or the broker was closed.

        May switch.
        """
        deadline: float | None = None
        event, subscription = self._event, self._subscription
        while True:
            event.clear()  # before looking: what comes from now on ends the wait
            self._check()
            if self._take_wake():
                return False
            if subscription.has_some:
                return True
            if subscription.is_resting:
                subscription.consume(self._prefetch)
                continue
            now = time.monotonic()
            if deadline is None:
                deadline = now + self._timeout_s
            elif now >= deadline:
                return False
            event.wait(max(0.0, deadline - now))

    def _take_wake(self) -> bool:
        is_woken, self._is_woken = self._is_woken, False
        return is_woken

    def wake(self) -> None:
        """End a wait that is under way, or else the next one. May be called from any thread."""
        self._is_woken = True
        self._event.set()

    def _check(self) -> None:
        if self._is_closed:
            raise ConnectionClosed("The consumer was closed")
        if self._subscription.lost is not None:
            raise self._subscription.lost

    # -- in batches

    def fetch(self, count: int) -> list[MessageProxy]:
        """The first ``count`` messages that the server has sent, or as many as there are.

        Raises:
          ConnectionClosed: The connection is lost, or the broker was closed.

        May switch: counts what its last worker was lost with.
        """
        self._check()
        if self._subscription.is_resting:
            self._subscription.consume(self._prefetch)
        return self._inbox.fetch(min(count, self.batch_size))

    def rest(self) -> None:
        """Return what the server sent and nobody took, and have it send no more until the next wait.

        Raises:
          ConnectionClosed: The connection is lost; so everything has gone back.

        May switch.
        """
        self._check()
        self._inbox.rest()

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """Write what became of these messages; return the verdicts that were refused.

        Refused is a verdict on a message of a connection that was lost, if the server has given
        the message to somebody else. Its follow-ups are not stored.

        Raises:
          ConnectionError: Some may be written and some not; try again.

        May switch.
        """
        if self._subscription.lost is not None:
            raise self._subscription.lost
        mine: list[Verdict] = []
        refused: list[Verdict] = []
        later: list[Verdict] = []
        for verdict in verdicts:
            message = verdict.message
            if message.is_written:
                continue
            if message.subscription is self._subscription:
                mine.append(verdict)
            else:
                fate = self._inbox.fate_of(message)
                (mine if fate is Fate.ADOPTED else later if fate is Fate.UNKNOWN else refused).append(verdict)
        error = self._settle(self._subscription, mine) if mine else None
        if error is not None:
            raise error
        if later:
            raise ConnectionClosed(
                f"The connection was lost while {len(later)} messages were in hand, and RabbitMQ has not delivered "
                "them again yet"
            )
        return refused

    def unwritten(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        return [verdict for verdict in verdicts if not verdict.message.is_written]

    def _settle(self, subscription: Subscription, verdicts: list[Verdict]) -> ConnectionError | None:
        """Settle all whose follow-ups are stored; answer why those of the others are not."""
        # What cannot be stored, in a queue that is full, say, delays nobody else.
        ready = [verdict for verdict in verdicts if not _left_to_store(verdict)]
        if ready:
            self._remove(subscription, ready)
            if len(ready) == len(verdicts):
                return None
        following = [verdict for verdict in verdicts if _left_to_store(verdict)]
        error = self._publish_what_follows(following)
        self._remove(subscription, [verdict for verdict in following if not _left_to_store(verdict)])
        return error

    def _remove(self, subscription: Subscription, verdicts: list[Verdict]) -> None:
        """Have the server forget these messages, or give them back."""
        done: list[Any] = [verdict.message for verdict in verdicts if verdict.action is not REQUEUE]
        back: list[Any] = [verdict.message for verdict in verdicts if verdict.action is REQUEUE]
        inbox = self._inbox
        if done:
            inbox.acknowledge(done)
        if back:
            # Those that are still taken here, go to their places here.
            if not subscription.put_back([message.delivery for message in back]):
                inbox.give_back([message.delivery for message in back])
            for message in back:
                message.is_written = True
        for verdict in verdicts:
            inbox.ended(verdict.message.delivery)

    def _publish_what_follows(self, verdicts: list[Verdict]) -> ConnectionError | None:
        """Store what follows from these; answer why something is not known to be stored."""
        first: ConnectionError | None = None
        for verdict in verdicts:
            error = _note_stored(verdict)
            first = first or error
        publishing = self._attachment.publishing
        if publishing.blocked_by is not None:
            # Whoever waits for the end of an alarm keeps everybody's verdicts waiting with it, and
            # what is not acknowledged is what fills the server's memory.
            return ConnectionFailed(f"RabbitMQ at {publishing.address} takes no messages ({publishing.blocked_by})")
        owners: list[Any] = []
        parts: list[Envelope | None] = []
        groups: list[list[Outgoing]] = []
        #: Queues that could not be declared: each is waited for once.
        away: set[str] = set()
        for verdict in verdicts:
            message: Any = verdict.message
            for part in _left_to_store(verdict):
                if any(part is each for each, _ in message.under_way):
                    continue
                if part is not None and part.queue_name in away:
                    continue
                try:
                    # Each by itself: what is stored is not stored again because of what is refused.
                    groups.append([self._outgoing(verdict, part)])
                except ConnectionError as error:
                    first = first or error
                    if part is not None:
                        away.add(part.queue_name)
                else:
                    owners.append(message)
                    parts.append(part)
        # All at once, unlike what inbox.py stores anew: if an alarm begins here all may be in doubt, and not
        # only a first one. But whether in doubt or not sent, they wait in hand for its end, and nothing that
        # could free the server's memory waits for them; a first one would cost each batch a confirm more.
        for message, part, batch in zip(owners, parts, self._attachment.store_if_taken(groups), strict=True):
            if batch.error is None:
                message.left_to_store.remove(part)
            elif batch.is_under_way:
                message.under_way = (*message.under_way, (part, batch))
            first = first or batch.error
        return first

    def _outgoing(self, verdict: Verdict, part: Envelope | None) -> Outgoing:
        if part is None:
            return _dead_letter(self.queue_name, verdict)
        return self._attachment.place_if_taken(part)

    def close(self) -> None:
        """End a wait. The last consumer of a queue returns what nobody took."""
        if self._is_closed:
            return
        self._is_closed = True
        self._subscription.remove_waker(self._event)
        self._event.set()
        self._attachment.leave(self._inbox)


# -- what is stored


def _left_to_store(verdict: Verdict) -> list[Envelope | None]:
    """What has to be stored before the message may be removed; None stands for its dead letter."""
    message: Any = verdict.message
    if message.left_to_store is None:
        message.left_to_store = list(verdict.follow_ups or ())
        if verdict.action is NACK:
            message.left_to_store.append(None)
    left: list[Envelope | None] = message.left_to_store
    return left


def _note_stored(verdict: Verdict) -> ConnectionError | None:
    """Note what was stored after whoever waited for it was told otherwise; answer why the rest may still be."""
    message: Any = verdict.message
    first: ConnectionError | None = None
    for part, batch in message.under_way:
        if batch.is_under_way:
            first = first or batch.error
        elif batch.error is None:
            message.left_to_store.remove(part)
    message.under_way = tuple(pair for pair in message.under_way if pair[1].is_under_way)
    return first


def _dead_letter(queue_name: str, verdict: Verdict) -> Outgoing:
    message: Any = verdict.message
    reason = verdict.reason or message.reason or ""
    payload = dead_payload(message)
    body = message.delivery.body if payload is None else payload
    return letter(queue_name, message.delivery, body, reason, message.deliveries)
