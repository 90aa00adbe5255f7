"""What comes of one queue: what may run, what was lost with a worker, what is delivered again.

Shared by the consumers of a queue in this process. The server's side is in subscription.py; what
becomes of the messages is in consumer.py.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from ...clock import now_ms
from ...consumer import MessageProxy, read_eta, without_eta
from ...errors import ConnectionError, DecodeError
from ...message import Message
from ...names import canonical_queue_name, check_queue_name
from .connection import TIMEOUT_S
from .in_doubt import InDoubt, is_in_doubt
from .loop import Answer
from .losses import ALONE_S, Chance, Trials, copy, losses
from .messages import RabbitmqMessage, RabbitmqUndecodable
from .publisher import Batch, Outgoing
from .subscription import Subscription
from .topology import check_name, rung_for
from .wire import Delivery

if TYPE_CHECKING:
    from .attachment import Attachment

#: Seconds in which the server delivers again what was in hand when a connection was lost.
_ADOPTION_S = 3.0

#: Seconds for which delayed messages that cannot be stored on their next rung stay here. Then they go
#: back, and RabbitMQ delivers them again at once: without a pause that would be a loop, as fast as both
#: can, for as long as the queue of a rung is full or its node is away.
_BEFORE_AGAIN_S = 1.0


class Fate(enum.Enum):
    """What became of a message that was in hand when the connection was lost."""

    ADOPTED = "it was delivered again, to this process"
    UNKNOWN = "it may be delivered to this process any moment"
    LOST = "somebody else has it"


class Inbox:
    """What consumers of one queue share: its subscription, and the rules for what comes.

    Parameters:
      attachment(Attachment): To the server.
      subscription(Subscription): Of the queue.
      logger(logging.Logger): The broker's.
      before(Inbox | None): The one whose connection was lost: what was in hand then, and is
        delivered to this process again, is not run again but settled by its new delivery; and
        what comes again because of that loss is not counted as lost with a worker.
    """

    def __init__(
        self, attachment: Attachment, subscription: Subscription, logger: logging.Logger, before: Inbox | None = None
    ) -> None:
        self.queue_name = subscription.queue_name
        self.subscription = subscription
        self.logger = logger
        #: How many consumers use it.
        self.users = 0
        self._attachment = attachment
        self._tag = subscription.queue_name.encode()
        self._most_losses = attachment.most_losses
        self._trials = Trials(self._tell_of_trials, self._most_losses)
        self._in_doubt: InDoubt = InDoubt(attachment.loop, subscription, before._in_doubt if before else None)
        self._lock = threading.Lock()
        self._is_sorting = False
        #: The timer of the next look for who may have the last chance, and its time on the monotonic clock.
        self._looking: Any = None
        self._looking_at = 0.0
        #: What is in hand, by tag; and what was when an earlier connection was lost, by its bytes.
        self._in_hand: dict[int, Any] = {}
        self._orphans: dict[bytes, Any] = {}
        self._adopting_until = time.monotonic() + _ADOPTION_S
        #: Whether all that is marked may be so because connections were lost, or the node: until
        #: something comes that is not marked, because it was behind all that was.
        self._spares_all = before is not None
        #: Bytes of what was here when an earlier connection was lost, and no job has had.
        self._untouched: Counter[bytes] = Counter()
        #: Tags of what is marked, and runs all the same without being counted.
        self._spared: set[int] = set()
        subscription.on_delayed(self._on_delayed)
        #: Notes of acks that were never sent. Each subscription writes its own, because an ack may find
        #: out late that it was not sent.
        self._never_acknowledged: list[Counter[bytes]] = []
        if before is not None:
            self._never_acknowledged = [*before.never_acknowledged(), before.subscription.never_acknowledged]
            self._orphans = before.in_hand()
            self._untouched = before.untouched()
            subscription.adopt(self._adopt)

    # -- messages whose connection was lost

    def in_hand(self) -> dict[bytes, Any]:
        """Messages that this process has in hand, by their bytes."""
        with self._lock:
            messages = [*self._orphans.values(), *list(self._in_hand.values())]
            return {message.delivery.body: message for message in messages if not message.is_written}

    def untouched(self) -> Counter[bytes]:
        """Bytes of what this process had from the server when the connection was lost, and no job has had."""
        waiting = [*self._trials.take_waiting(), *self._in_doubt.deliveries]
        found = self.subscription.untouched + Counter(delivery.body for delivery in waiting)
        # Lost again before what the loss before it gave back has come.
        return found + self._untouched if self._spares_all else found

    def never_acknowledged(self) -> list[Counter[bytes]]:
        """Notes of acks that were never sent, for as long as what comes again is taken for one of them.

        After that the message has come to somebody else: the same bytes, if they come, were sent anew.
        """
        return self._never_acknowledged if time.monotonic() < self._adopting_until else []

    def acknowledge(self, messages: list[Any]) -> None:
        """Remove these messages from the queue. Does not wait.

        Raises:
          ConnectionError: The connection is lost, and they are still in hand.
        """
        # Nobody must see one that is acknowledged and not written: it would be adopted by its next
        # delivery, which nobody would settle then.
        with self._lock:
            self.subscription.acknowledge([message.delivery for message in messages])
            for message in messages:
                message.is_written = True
                self._spared.discard(message.delivery.tag)

    def _adopt(self, delivery: Delivery) -> bool:
        # In the loop. Whoever brings the verdict looks at the subscription first.
        if not delivery.is_redelivered and not losses(delivery):
            return False  # it is new, whatever else had the same bytes
        if delivery.is_redelivered and self._in_doubt.keep_again(delivery):
            return True
        with self._lock:
            message = self._orphans.pop(delivery.body, None)
            if message is None or message.is_written:
                if not self._orphans and time.monotonic() > self._adopting_until:
                    self.subscription.adopt(None)
                    self._never_acknowledged = []
                return self._was_settled(delivery)
            self._in_hand[delivery.tag] = message
            self._spared.add(delivery.tag)
            self._trials.came(delivery)
            message.delivery = delivery
            message.subscription = self.subscription
            return True

    def _was_settled(self, delivery: Delivery) -> bool:
        """Whether this was settled already, by an ack that was never sent: it is sent now."""
        # Without the flag it may be a copy, with a count, of what comes yet.
        if not delivery.is_redelivered:
            return False
        for notes in self.never_acknowledged():
            if notes[delivery.body]:
                if self.subscription.lost is None:  # else it comes once more
                    notes[delivery.body] -= 1
                    self.subscription.acknowledge([delivery])
                return True
        return False

    def fate_of(self, message: Any) -> Fate:
        """What became of a message of a connection that was lost."""
        with self._lock:
            if message.subscription is self.subscription:
                return Fate.ADOPTED
            body: bytes = message.delivery.body
            if self._orphans.get(body) is not message:
                return Fate.LOST
            if time.monotonic() < self._adopting_until:
                return Fate.UNKNOWN
            del self._orphans[body]
            return Fate.LOST

    # -- messages that are ready

    def fetch(self, count: int) -> list[MessageProxy]:
        messages: list[MessageProxy] = []
        suspects: list[Delivery] = []
        trials, subscription = self._trials, self.subscription
        is_blocked = self._attachment.publishing.blocked_by is not None
        for delivery in subscription.take(count):
            if delivery.is_redelivered:
                if not self._spares(delivery):
                    lost = losses(delivery) + 1
                    if lost >= self._most_losses:
                        messages.append(self._give_up(delivery))
                        continue
                    # Nothing can be stored during an alarm. The first loss goes uncounted then, because
                    # only by running its queue is the server's memory freed; others wait, for a while.
                    is_counted = not is_blocked
                    if lost == self._most_losses - 1:
                        chance = trials.judge(delivery, can_count=is_counted)
                        if chance is Chance.LATER:
                            self._look_again_in_time()
                            continue
                        is_counted = chance is Chance.ALONE
                    if is_counted:
                        suspects.append(delivery)
                        continue
                    self._spared.add(delivery.tag)
            elif delivery.consumer_tag == self._tag:
                self._spares_all = False
            if delivery.properties.headers:
                trials.came(delivery)
            message = self._in_hand[delivery.tag] = self._decode(delivery)
            messages.append(message)
        if suspects:
            try:
                messages += self._count(suspects)
            except BaseException as error:
                if messages and isinstance(error, ConnectionError) and subscription.lost is None:
                    return messages  # the others wait in their places
                # What is counted already is gone from this channel; the rest comes again.
                for each in messages:
                    self._in_hand.pop(each.delivery.tag, None)
                subscription.put_back([message.delivery for message in messages])
                raise
        return messages

    def _spares(self, delivery: Delivery) -> bool:
        """Whether a marked message was not lost with a worker, as far as this process can know."""
        if delivery.tag in self._spared:
            return True
        if self._untouched[delivery.body]:
            self._untouched[delivery.body] -= 1
            if not self._untouched[delivery.body]:
                del self._untouched[delivery.body]
        elif not self._spares_all:
            return False
        self._spared.add(delivery.tag)
        return True

    def _decode(self, delivery: Delivery) -> MessageProxy:
        body = delivery.body
        try:
            message = Message.decode(body)
            if message.queue_name != self.queue_name:
                _check_queue_of(message, body)
        except DecodeError as error:
            return RabbitmqUndecodable(self.queue_name, error, delivery, self.subscription)
        if "eta" in message.options:
            message = without_eta(message)
        return RabbitmqMessage(message, delivery, self.subscription)

    def _give_up(self, delivery: Delivery) -> MessageProxy:
        """A message that was lost too often, to be moved to the dead letters with what follows from that."""
        message = self._in_hand[delivery.tag] = self._decode(delivery)
        if isinstance(message, RabbitmqMessage):
            message.give_up()
            self.logger.error(
                "Message %s of queue %s goes to the dead letters: %s",
                *(message.message_id, self.queue_name, message.reason),
            )
        return message

    def _count(self, suspects: list[Delivery]) -> list[MessageProxy]:
        """Store what may have been lost with a worker anew, with the count of that.

        Answers those that run uncounted, because an alarm has begun, or because the queue is full
        and refused their copies: only by their being run does the server take messages again.
        """
        stored: list[Delivery] = []
        in_doubt: list[tuple[Delivery, Batch]] = []
        uncounted: list[Delivery] = []
        failed: list[Delivery] = []
        first: ConnectionError | None = None
        batches = self._store_anew([copy(each, self.queue_name, losses(each) + 1) for each in suspects])
        is_blocked = self._attachment.publishing.blocked_by is not None
        for delivery, batch in zip(suspects, batches, strict=True):
            error = batch.error
            if error is None:
                stored.append(delivery)
            elif is_in_doubt(error):
                in_doubt.append((delivery, batch))
                if not batch.is_under_way:
                    first = first or error
            elif batch.refused or is_blocked:
                uncounted.append(delivery)
            else:
                failed.append(delivery)
                first = first or error
        self._in_doubt.keep(in_doubt)
        self.subscription.acknowledge_stored(stored)
        if first is not None:
            self.subscription.put_back([*failed, *uncounted])
            raise first
        return [self._run_uncounted(each) for each in uncounted if self._may_run_uncounted(each)]

    def _store_anew(self, copies: list[Outgoing]) -> list[Batch]:
        """Store copies of messages, each by itself; fail at once if an alarm is on, or begins."""
        # RabbitMQ tells of an alarm only who sends something, and leaves that unread until it ends. So one
        # goes first: if all went at once, all would be in doubt and nothing left to run, and where it is
        # this queue that fills the server's memory the alarm would never end.
        batches = self._attachment.store_if_taken([[each] for each in copies[:1]])
        if len(copies) > 1:
            batches += self._attachment.store_if_taken([[each] for each in copies[1:]])
        return batches

    def _may_run_uncounted(self, delivery: Delivery) -> bool:
        """Whether a message whose loss could not be counted may run all the same. If not, it waits here."""
        if losses(delivery) + 1 < self._most_losses - 1:
            return True
        if self._trials.judge(delivery, can_count=False) is not Chance.LATER:
            return True
        self._look_again_in_time()
        return False

    def _run_uncounted(self, delivery: Delivery) -> MessageProxy:
        self._spared.add(delivery.tag)
        message = self._in_hand[delivery.tag] = self._decode(delivery)
        return message

    def ended(self, delivery: Delivery) -> None:
        """A message was settled."""
        self._in_hand.pop(delivery.tag, None)
        if delivery.properties.headers:
            self._trials.ended(delivery)
            self._try_next()

    def _try_next(self) -> None:
        following = self._trials.next()
        if following and not self.subscription.put_back(following):
            self._trials.keep(following)  # at rest: they go back with the others

    def _tell_of_trials(self) -> None:
        self.logger.info(
            "Messages of queue %s that were lost with their workers %d times run one at a time, because one of them "
            "may kill again; after %.0f s more and more of them run at once.",
            *(self.queue_name, self._most_losses - 1, ALONE_S),
        )

    def _look_again_in_time(self) -> None:
        # The end of the one on trial has the next one tried. But its copy may have come to another
        # process, from which nothing is heard here; and in a while more of them may be tried.
        self._attachment.loop.soon(self._look_later)

    def _look_later(self) -> None:
        wait_s = self._trials.wait_s
        if wait_s is None or self.subscription.lost is not None or self.subscription.is_resting:
            return
        at = time.monotonic() + wait_s
        if self._looking is not None:
            if self._looking_at <= at:
                return
            self._looking.cancel()
        self._looking_at = at
        self._looking = self._attachment.loop.later(wait_s, self._look)

    def _look(self) -> None:
        self._looking = None
        if self.subscription.lost is None:
            self._try_next()
            self._look_later()

    # -- giving back

    def rest(self) -> None:
        self.give_back([*self.subscription.rest(), *self._trials.take_waiting()])

    def take_all(self) -> list[Delivery]:
        """All that no job had, to be settled."""
        return [*self.subscription.take_all(), *self._trials.take_waiting()]

    def give_back(self, deliveries: list[Delivery]) -> None:
        """Return messages to the queue unharmed."""
        counted = [delivery for delivery in deliveries if losses(delivery) and self._goes_back_anew(delivery)]
        if counted:
            pairs = list(zip(counted, self._store_anew([self._uncounted(each) for each in counted]), strict=True))
            in_doubt = [(delivery, batch) for delivery, batch in pairs if is_in_doubt(batch.error)]
            kept = {delivery.tag for delivery, _ in in_doubt}
            stored = [delivery for delivery, batch in pairs if batch.error is None and delivery.tag not in kept]
            tags = {delivery.tag for delivery in stored}
            if stored:
                self._attachment.loop.ask(partial(self._remove_stored, stored), TIMEOUT_S, "remove messages")
            self._in_doubt.keep(in_doubt)
            deliveries = [delivery for delivery in deliveries if delivery.tag not in tags | kept]
        self._spared.difference_update(delivery.tag for delivery in deliveries)
        self.subscription.give_back([delivery.tag for delivery in deliveries])

    def _remove_stored(self, stored: list[Delivery], answer: Answer) -> None:
        """Acknowledge messages whose copies are stored: whatever becomes of the connection, nobody gives them back."""
        # In the loop, so that none is adopted meanwhile: its ack would be noted as never sent beside the one
        # that is, and the note be taken for the copy's when that comes marked.
        mine: list[Delivery] = []
        for delivery in stored:
            message = self._in_hand.get(delivery.tag)
            if message is not None:
                message.is_written = True
            if message is None or message.subscription is self.subscription:
                mine.append(delivery)
            else:  # it was adopted while its copy was on the way
                with contextlib.suppress(ConnectionError):
                    message.subscription.acknowledge_stored([message.delivery])
        with contextlib.suppress(ConnectionError):
            self.subscription.acknowledge_stored(mine)
        answer.give()

    def _goes_back_anew(self, delivery: Delivery) -> bool:
        # One that came marked, and that nobody has looked at, has a loss yet to be counted.
        return not delivery.is_redelivered or delivery.tag in self._spared

    def _uncounted(self, delivery: Delivery) -> Outgoing:
        """The same without the loss that was counted before this delivery, if it was."""
        return copy(delivery, self.queue_name, losses(delivery) - (0 if delivery.is_redelivered else 1))

    # -- messages that may have to wait

    def _on_delayed(self) -> None:
        # In the loop, which must not wait for the server: a task sorts them out, then ends.
        with self._lock:
            if self._is_sorting:
                return
            self._is_sorting = True
        self._attachment.loop.runtime.spawn(self._sort_out, name=f"delays of {self.queue_name}")

    def _sort_out(self) -> None:
        """Put what is due to what is ready, and what is not on the next rung of the ladder."""
        try:
            while deliveries := self.subscription.take_delayed():
                self._sort(deliveries)
        finally:
            with self._lock:
                self._is_sorting = False
        if self.subscription.has_delayed:  # since the last look, while this counted as under way
            self._on_delayed()

    def _sort(self, deliveries: list[Delivery]) -> None:
        due: list[Delivery] = []
        early: list[tuple[Delivery, Outgoing]] = []
        now = now_ms()
        for delivery in deliveries:
            due_ms = self._due_ms(delivery)
            if due_ms is None or due_ms <= now:
                due.append(delivery)
            else:
                rung = rung_for(self.queue_name, due_ms - now)
                early.append((delivery, copy(delivery, rung, losses(delivery))))
        try:
            if due and not self.subscription.put_back(due):
                self.give_back(due)
            if early:
                self._pass_on(early)
        except ConnectionError:
            # The channel is lost, and the messages come again on the next one; or they can
            # not be passed on now.
            if self.subscription.lost is None:
                self._attachment.loop.runtime.sleep(_BEFORE_AGAIN_S)  # or they would come again at once, for ever
            self._return_early(early)

    def _due_ms(self, delivery: Delivery) -> int | None:
        try:
            return read_eta(Message.decode(delivery.body), self.logger)
        except DecodeError:
            return None  # whoever fetches it finds out

    def _pass_on(self, early: list[tuple[Delivery, Outgoing]]) -> None:
        self._attachment.ensure_ladder(self.queue_name, link=self._attachment.consuming)
        stored: list[Delivery] = []
        in_doubt: list[tuple[Delivery, Batch]] = []
        left: list[tuple[Delivery, Outgoing]] = []
        first: ConnectionError | None = None
        batches = self._store_anew([outgoing for _, outgoing in early])
        for pair, batch in zip(early, batches, strict=True):
            error = batch.error
            if error is None:
                stored.append(pair[0])
            elif is_in_doubt(error):
                in_doubt.append((pair[0], batch))
            else:
                left.append(pair)
                first = first or error
        early[:] = left
        self._in_doubt.keep(in_doubt)
        self.subscription.acknowledge_stored(stored)
        if first is not None:
            raise first

    def _return_early(self, early: list[tuple[Delivery, Outgoing]]) -> None:
        try:
            self.subscription.give_back([delivery.tag for delivery, _ in early])
        except ConnectionError:
            return


def _check_queue_of(message: Message[Any], body: bytes) -> None:
    # A retry goes to the queue that the message names.
    try:
        name = check_queue_name(canonical_queue_name(message.queue_name))
        check_name(name)
    except ValueError as error:
        raise DecodeError(str(error), body, error) from error
